"""The test part that we choose ourselves."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_zoo.data.holdout import held_out


def hashes(count: int) -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (count,))


def test_the_lowest_hashes_of_each_class_are_held_out() -> None:
    content, labels = hashes(200), torch.randint(3, (200,))
    mask = held_out(content, labels)
    for label in range(3):
        members = content[labels == label].sort().values
        assert (
            sorted(content[mask & (labels == label)].tolist())
            == members[: round(0.2 * len(members))].tolist()
        )
    assert torch.equal(
        held_out(content).nonzero().flatten().sort().values, content.argsort()[:40].sort().values
    )


def test_large_groups_are_not_preferred() -> None:
    sizes = []
    for _ in range(200):
        groups = torch.tensor([0] * 10 + [*range(1, 91)])
        sizes.append(int(held_out(hashes(100), groups=groups)[:10].sum()))
    assert (
        15 < sum(size == 10 for size in sizes) < 60
    )  # about one in six; by its lowest hash it would be most


def test_no_class_is_tested_that_is_not_trained_on() -> None:
    labels = torch.tensor([0] * 50 + [1])
    groups = torch.tensor(
        [index // 5 for index in range(50)] + [3]
    )  # the only image of class 1 is of group 3
    tested = torch.stack([held_out(hashes(51), labels, groups) for _ in range(50)])
    assert not tested[:, 50].any()
    assert (tested[:, :50].sum(1) == 10).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40),
    st.randoms(),
)
def test_whatever_must_stay_together_does_in_any_order(images: list[tuple[int, int, int]], random) -> None:
    content, labels, groups = (torch.tensor(column) for column in zip(*images, strict=True))
    mask = held_out(content, labels, groups)
    for tied in (content, groups):
        assert not set(tied[mask].tolist()) & set(tied[~mask].tolist())
    assert set(labels[mask].tolist()) <= set(labels[~mask].tolist())
    order = torch.tensor(random.sample(range(len(images)), len(images)))
    assert torch.equal(held_out(content[order], labels[order], 7 - groups[order]), mask[order])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=40))
def test_each_class_of_two_distinct_images_is_tested(images: list[tuple[int, int]]) -> None:
    content, labels = (torch.tensor(column) for column in zip(*dict(images).items(), strict=True))
    mask = held_out(content, labels)
    count = labels.bincount(minlength=3)
    assert torch.equal(labels[mask].bincount(minlength=3) > 0, count > 1)
