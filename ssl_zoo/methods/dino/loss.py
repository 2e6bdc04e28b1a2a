"""DINO's loss, its center state and what both say about collapse."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ssl_zoo import ranks
from ssl_zoo.nets import cross_view_pairs

Centering = Literal["mean", "sinkhorn", "none"]


class DINOLoss(nn.Module):
    """Cross-entropy between teacher and student across views, with the teacher centred and sharpened.

    Mean over pairs of different views and over images of -sum_k softmax((t - c) / T_t) log softmax(s / T_s)
    (Caron et al. 2021, eq. 3, averaged as in the official code). The buffer `center` [1, K] moves only in
    `update_center`. `centering` "sinkhorn" balances the prototypes over each batch instead of subtracting a
    center, which suits few classes and small batches; "none" lets one prototype win.
    """

    center: Tensor

    def __init__(
        self,
        out_dim: int,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        centering: Centering = "mean",
    ) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.centering = centering
        self.register_buffer("center", torch.zeros(1, out_dim))

    def teacher_distribution(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Detached targets [T, B, K], at least float32, from teacher logits [T, B, K]."""
        logits = _at_least_float32(teacher_logits.detach())
        match self.centering:
            case "mean":
                return ((logits - self.center) / temperature).softmax(-1)
            case "sinkhorn":
                return sinkhorn(logits.flatten(0, 1) / temperature).view_as(logits)
            case "none":
                return (logits / temperature).softmax(-1)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, teacher_temperature: float = 0.04
    ) -> Tensor:
        """Student logits [S, B, K], teacher logits [T, B, K] of the first T views -> float32 scalar."""
        return self.cross_entropy(
            student_logits, self.teacher_distribution(teacher_logits, teacher_temperature)
        )

    def cross_entropy(self, student_logits: Tensor, targets: Tensor) -> Tensor:
        """Student logits [S, B, K], target distributions [T, B, K] -> scalar, the mean over cross-view pairs.

        Raises ValueError if there is no pair of different views.
        """
        loss: Tensor = _CrossEntropy.apply(student_logits, targets, self.student_temperature)
        return loss

    @torch.no_grad()
    def update_center(self, teacher_logits: Tensor) -> None:
        """Move the center to the mean of raw teacher logits [T, B, K] (eq. 4); once a step, after its use."""
        mean = _at_least_float32(teacher_logits).flatten(0, 1).mean(0, keepdim=True)
        self.center.lerp_(ranks.mean(mean), 1 - self.center_momentum)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy over cross-view pairs with its gradient in closed form, one student view at a time.

    Student view j meets the sum q_j of n_j targets, those of the other views, so its gradient is
    (n_j softmax(s_j / T) - q_j) / (T B pairs). No softmax is kept: for wide logits memory is the limit.
    """

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(student_logits, targets)
        ctx.temperature = temperature
        total, every = targets.new_zeros(()), targets.sum(0)
        for j, logits in enumerate(student_logits):
            log_p = (_at_least_float32(logits) / temperature).log_softmax(-1)
            total = total - log_p.mul_(_others(targets, every, j)).sum()
        return total / _terms(student_logits, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        student_logits, targets = ctx.saved_tensors
        scale = grad / (ctx.temperature * _terms(student_logits, targets))
        targets = targets * -scale
        every, gradient = targets.sum(0), torch.empty_like(student_logits)
        for j, logits in enumerate(student_logits):
            p = (_at_least_float32(logits) / ctx.temperature).softmax(-1)
            count = len(targets) - (j < len(targets))
            torch.addcmul(_others(targets, every, j), p, scale * count, out=gradient[j])
        return gradient, None, None


def _others(targets: Tensor, every: Tensor, view: int) -> Tensor:
    """The sum [B, K] of all `targets` [T, B, K], which is `every`, without that of `view` itself."""
    if view >= len(targets):
        return every
    return targets[1 - view] if len(targets) == 2 else every - targets[view]  # of two, no arithmetic


def _terms(student_logits: Tensor, targets: Tensor) -> int:
    """How many cross-entropies the mean is taken over: pairs of different views times images."""
    return len(cross_view_pairs(len(targets), len(student_logits))) * student_logits.shape[1]


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def prototype_metrics(loss: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What tells collapses apart, from a step's loss and its targets [T, B, K]; in nats, nothing waits.

    loss = teacher_entropy + kl, h(Pt) + KL(Pt || Ps), means over pairs and images; `batch_entropy` is
    H(E[Pt]), `uniform_entropy` ln K, `loss_gap` the loss's distance from it (Caron et al. 2021, sec. 5.3).
    """
    loss, uniform = loss.detach(), math.log(targets.shape[-1])
    entropy = torch.special.entr(targets).sum(-1).mean()
    return {
        "teacher_entropy": entropy,
        "kl": loss - entropy,
        "batch_entropy": torch.special.entr(ranks.mean(targets.mean((0, 1)))).sum(),
        "uniform_entropy": torch.tensor(uniform),
        "loss_gap": (ranks.mean(loss) - uniform).abs(),
    }


def sinkhorn(scores: Tensor, iterations: int = 3) -> Tensor:
    """Assignments [N, K] whose rows sum to 1 and columns nearly to N / K, from scores / temperature [N, K].

    Sinkhorn-Knopp in the log domain, where it cannot overflow: columns, then rows, three times (Cuturi 2013;
    DINOv2's alternative to centering). N are the images of all teacher views together. Every prototype gets
    its share whatever the scores, so that no center has to move, and few images are enough. Ranks that share
    a batch balance it together.
    """
    log_q = scores
    for _ in range(iterations):
        columns = ranks.gather(log_q.logsumexp(0, keepdim=True))
        log_q = log_q - columns.logsumexp(0)
        log_q = log_q.log_softmax(1)
    return log_q.exp()
