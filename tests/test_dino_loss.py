"""DINO's loss against the paper's formula, lightly's loss and itself in float64."""

import lightly.loss
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ssl_zoo.methods.dino import DINOLoss
from ssl_zoo.methods.dino.loss import sinkhorn

STUDENT_T, TEACHER_T = 0.1, 0.05


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_loss(loss: DINOLoss, student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over pairs of different views of -q log p, written as in the paper and left to autograd."""
    q = loss.teacher_distribution(teacher, TEACHER_T)
    log_p = (student / loss.student_temperature).log_softmax(-1)
    pairs = [(q[i] * log_p[j]).sum(-1).mean() for i in range(len(q)) for j in range(len(log_p)) if i != j]
    return -torch.stack(pairs).mean()


def value_and_gradient(function, student: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = function(student)
    (3 * value).backward()  # a loss may be scaled
    return value.detach(), student.grad


@pytest.mark.parametrize("centering", ["mean", "sinkhorn", "none"])
@pytest.mark.parametrize("width", [2, 65, 4096])
@pytest.mark.parametrize(("teachers", "crops"), [(2, 2), (2, 3), (2, 10), (3, 5), (1, 2), (4, 4)])
def test_loss_equals_the_plain_formula(centering: str, width: int, teachers: int, crops: int) -> None:
    student, teacher = random(crops, 6, width), random(teachers, 6, width, seed=1)
    loss = DINOLoss(width, STUDENT_T, centering=centering).double()
    loss.center.copy_(random(1, width, seed=2))
    exact, exact_gradient = value_and_gradient(
        lambda logits: plain_loss(loss, logits, teacher.double()), student.double()
    )
    value, gradient = value_and_gradient(
        lambda logits: loss(logits, teacher.double(), TEACHER_T), student.double()
    )
    torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-10, atol=1e-10)

    loss.float()
    value, gradient = value_and_gradient(lambda logits: loss(logits, teacher, TEACHER_T), student)
    assert (value - exact).abs() <= 1e-6 * exact
    assert (gradient - exact_gradient).norm() <= 1e-5 * exact_gradient.norm()


@pytest.mark.parametrize(("teachers", "crops"), [(2, 2), (2, 4), (3, 4), (1, 2)])
def test_gradient_is_the_loss_own(teachers: int, crops: int) -> None:
    loss = DINOLoss(5).double()
    student, teacher = random(crops, 3, 5).double().requires_grad_(), random(teachers, 3, 5, seed=1).double()
    assert torch.autograd.gradcheck(lambda logits: loss(logits, teacher, TEACHER_T), student)


def test_gradient_of_half_precision_logits_is_rounded_once() -> None:
    student, teacher = random(4, 8, 512).bfloat16(), random(2, 8, 512, seed=1).bfloat16()
    loss = DINOLoss(512)
    _, exact = value_and_gradient(lambda logits: loss(logits, teacher, TEACHER_T), student.float())
    with torch.autocast("cpu", torch.bfloat16):
        _, gradient = value_and_gradient(lambda logits: loss(logits, teacher, TEACHER_T), student)
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(gradient, exact.bfloat16())


def test_backward_keeps_logits_and_targets_and_nothing_as_wide() -> None:
    student, teacher = random(6, 4, 32).requires_grad_(), random(2, 4, 32, seed=1)
    loss, kept = DINOLoss(32), []
    targets = loss.teacher_distribution(teacher, TEACHER_T)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss.cross_entropy(student, targets)
    wide = {tensor.data_ptr() for tensor in kept if tensor.numel() >= 32}
    assert wide == {student.data_ptr(), targets.data_ptr()}


def test_gradient_may_be_asked_for_twice() -> None:
    student, teacher = random(3, 4, 8).requires_grad_(), random(2, 4, 8, seed=1)
    value = DINOLoss(8)(student, teacher)
    first, second = (torch.autograd.grad(value, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("crops", [2, 6, 10])
def test_loss_gradient_and_center_follow_the_paper(crops: int) -> None:
    batch, width = 3, 7
    student, teacher = random(crops, batch, width), random(2, batch, width, seed=1)
    loss = DINOLoss(width, STUDENT_T, center_momentum=0.9)
    loss.center.copy_(random(1, width, seed=2))
    center = loss.center.double().clone()

    value, pairs, gradient = 0.0, 2 * crops - 2, torch.zeros(crops, batch, width, dtype=torch.float64)
    for i in range(2):
        for v in range(crops):
            if i == v:
                continue
            for b in range(batch):
                q = ((teacher[i, b].double() - center[0]) / TEACHER_T).exp()
                q = q / q.sum()
                p = (student[v, b].double() / STUDENT_T).exp()
                p = p / p.sum()
                value = value - (q * p.log()).sum() / pairs / batch
                gradient[v, b] += (p - q) / STUDENT_T / pairs / batch

    student.requires_grad_()
    result = loss(student, teacher, TEACHER_T)
    result.backward()
    torch.testing.assert_close(result.double(), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(student.grad.double(), gradient, rtol=1e-5, atol=1e-7)
    assert torch.equal(loss.center.double(), center)

    loss.update_center(teacher)
    mean = sum(teacher[i, b].double() for i in range(2) for b in range(batch)) / (2 * batch)
    torch.testing.assert_close(loss.center[0].double(), 0.9 * center[0] + 0.1 * mean, rtol=1e-6, atol=1e-7)


def official_loss(
    student: Tensor, teacher: Tensor, center: Tensor, student_t: float, teacher_t: float
) -> Tensor:
    """DINOLoss.forward of facebookresearch/dino on crop-major logits [S B, K] and [2 B, K]."""
    crops = len(student) // (len(teacher) // 2)
    students = (student / student_t).chunk(crops)
    targets = ((teacher - center) / teacher_t).softmax(-1).detach().chunk(2)
    total, terms = student.new_zeros(()), 0
    for i, q in enumerate(targets):
        for v, logits in enumerate(students):
            if v == i:
                continue
            total = total + (-q * logits.log_softmax(-1)).sum(-1).mean()
            terms += 1
    return total / terms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 4096])
@pytest.mark.parametrize("crops", range(2, 13))
def test_loss_equals_the_official_one_for_any_crops(crops: int, width: int, dtype: torch.dtype) -> None:
    student, teacher = random(crops, 3, width).to(dtype), random(2, 3, width, seed=1).to(dtype)
    loss = DINOLoss(width, STUDENT_T)
    loss.center.copy_(random(1, width, seed=2))
    exact = official_loss(
        student.double().flatten(0, 1),
        teacher.double().flatten(0, 1),
        loss.center.double(),
        STUDENT_T,
        TEACHER_T,
    )
    value = loss(student, teacher, TEACHER_T)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    value = loss.double()(student.double(), teacher.double(), TEACHER_T)
    assert value.item() == pytest.approx(exact.item(), rel=1e-10)


# Mistakes that are easily made


def same_view_included(student, teacher, center):
    q, log_p = ((teacher - center) / TEACHER_T).softmax(-1), (student / STUDENT_T).log_softmax(-1)
    return -torch.stack([(a * b).sum(-1).mean() for a in q for b in log_p]).mean()


def sum_over_pairs(student, teacher, center):
    pairs = 2 * len(student) - 2
    return pairs * official_loss(student.flatten(0, 1), teacher.flatten(0, 1), center, STUDENT_T, TEACHER_T)


def center_added(student, teacher, center):
    return official_loss(student.flatten(0, 1), teacher.flatten(0, 1), -center, STUDENT_T, TEACHER_T)


def center_updated_before_use(student, teacher, center):
    moved = 0.9 * center + 0.1 * teacher.flatten(0, 1).mean(0)
    return official_loss(student.flatten(0, 1), teacher.flatten(0, 1), moved, STUDENT_T, TEACHER_T)


def chunked_image_major(student, teacher, center):
    flat = [logits.transpose(0, 1).flatten(0, 1) for logits in (student, teacher)]
    return official_loss(*flat, center, STUDENT_T, TEACHER_T)


def temperatures_swapped(student, teacher, center):
    return official_loss(student.flatten(0, 1), teacher.flatten(0, 1), center, TEACHER_T, STUDENT_T)


MISTAKES = [
    same_view_included,
    sum_over_pairs,
    center_added,
    center_updated_before_use,
    chunked_image_major,
    temperatures_swapped,
]


@pytest.mark.parametrize("crops", [2, 10])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda function: function.__name__)
def test_wrong_losses_are_told_apart(mistake, crops: int) -> None:
    student, teacher = random(crops, 6, 64), random(2, 6, 64, seed=1)
    loss = DINOLoss(64, STUDENT_T)
    loss.center.copy_(random(1, 64, seed=2))
    right, wrong = loss(student, teacher, TEACHER_T), mistake(student, teacher, loss.center)
    assert abs(right - wrong) > 1e-3 * right  # a thousand times what agreement is held to


def test_gradient_into_the_teacher_is_told_apart() -> None:
    """A loss that lets it through gives the teacher one; ours gives none, and the same to the student."""
    student, teacher = random(2, 3, 8).requires_grad_(), random(2, 3, 8, seed=1).requires_grad_()
    q, log_p = (teacher / TEACHER_T).softmax(-1), (student / STUDENT_T).log_softmax(-1)
    leaking = -(q[0] * log_p[1] + q[1] * log_p[0]).sum(-1).mean() / 2
    wrong = torch.autograd.grad(leaking, [student, teacher])
    right = torch.autograd.grad(
        DINOLoss(8, STUDENT_T)(student, teacher, TEACHER_T), [student, teacher], allow_unused=True
    )
    assert wrong[1].norm() > 0.1
    assert right[1] is None
    torch.testing.assert_close(right[0], wrong[0])


def test_loss_equals_lightly_over_three_steps() -> None:
    ours = DINOLoss(32, STUDENT_T, center_momentum=0.9)
    theirs = lightly.loss.DINOLoss(32, student_temp=STUDENT_T, center_momentum=0.9)
    for step in range(3):
        student = random(6, 4, 32, seed=step).requires_grad_()
        copied = student.detach().clone().requires_grad_()
        teacher = random(2, 4, 32, seed=10 + step)
        mine, other = ours(student, teacher, 0.04), theirs(list(teacher), list(copied), teacher_temp=0.04)
        mine.backward()
        other.backward()
        ours.update_center(teacher)
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(student.grad, copied.grad)
        torch.testing.assert_close(ours.center, theirs.center[0])


@pytest.mark.parametrize("centering", ["mean", "sinkhorn", "none"])
def test_loss_of_half_precision_logits_is_summed_in_float32(centering: str) -> None:
    student, teacher = (random(2, 64, 4096, seed=i).mul(2).bfloat16() for i in range(2))
    loss = DINOLoss(4096, centering=centering)
    exact = loss(student.float(), teacher.float(), TEACHER_T)
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(student, teacher, TEACHER_T)
    assert result.dtype == torch.float32
    assert result.item() == exact.item()


def test_loss_detaches_the_teacher() -> None:
    student, teacher = random(2, 3, 5).requires_grad_(), random(2, 3, 5, seed=1).requires_grad_()
    DINOLoss(5)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_loss_of_one_view_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="give two global_views"):
        DINOLoss(5)(random(1, 3, 5), random(1, 3, 5))


def test_uniform_collapse_shows_as_log_of_the_width() -> None:
    loss = DINOLoss(64)(torch.zeros(2, 3, 64), torch.zeros(2, 3, 64))
    torch.testing.assert_close(loss, torch.tensor(64.0).log())


def test_sinkhorn_balances_as_in_the_plain_domain() -> None:
    samples, prototypes = 12, 5
    scores = random(samples, prototypes)
    q = scores.double().exp().T  # DINOv2: [K, B]
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / prototypes
        q = q / q.sum(0, keepdim=True) / samples
    torch.testing.assert_close(sinkhorn(scores).double(), (q * samples).T, rtol=1e-5, atol=1e-7)

    balanced = sinkhorn(scores, iterations=50)
    torch.testing.assert_close(balanced.sum(1), torch.ones(samples))
    torch.testing.assert_close(balanced.sum(0), torch.full((prototypes,), samples / prototypes))


def test_sinkhorn_survives_scores_that_overflow_in_the_plain_domain() -> None:
    assert sinkhorn(random(6, 4) * 1000).isfinite().all()
