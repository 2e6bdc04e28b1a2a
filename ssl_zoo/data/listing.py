"""What a source of encoded images holds, and which part each image plays."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_zoo.data.holdout import held_out

PARTS = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("pretrain", "unlabeled", "unlabelled"), "pretrain"),
}
OWN_SPLIT = "the source's own train and {}"
HELD_OUT = "test: 20 %{} by content hash"
_TRAIN, _EXTRA, _TEST, _OUT = range(4)


class Listing(NamedTuple):
    """The images of a source, still encoded; what is told of each stands at the same place of every field.

    `files` and `spans` are those of Photos; `names` tell the images apart; `parts` are values of PARTS, all
    of them "train" if the source has no split of its own; `labels` [N] int64 index `classes`, -1 for none;
    `groups` are names, "" for none; `rule` says who made the split, with {} for the part that is the test.
    """

    files: Sequence[str | Path]
    spans: Tensor | None
    names: tuple[str, ...]
    parts: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    rule: str = OWN_SPLIT
    notes: tuple[str, ...] = ()

    def only(self, index: Tensor) -> "Listing":
        """What is told of the images at `index` [K] int64; `files` and `spans` stay."""
        kept = index.tolist()
        return self._replace(
            names=tuple(self.names[i] for i in kept),
            parts=tuple(self.parts[i] for i in kept),
            labels=self.labels[index],
            groups=None if self.groups is None else tuple(self.groups[i] for i in kept),
        )

    def group_ids(self) -> Tensor | None:
        """A number for each group, and for each image without one, [N] int64."""
        if self.groups is None:
            return None
        number = {group: index for index, group in enumerate(sorted({*self.groups} - {""}))}
        return torch.tensor(
            [number.get(group, len(number) + index) for index, group in enumerate(self.groups)]
        )


class Division(NamedTuple):
    """Indices of the images of train and test and of those in pretrain only; some may be in none of them."""

    train: Tensor
    extra: Tensor
    test: Tensor
    rule: str
    notes: tuple[str, ...]


def divide(listing: Listing, content: Tensor) -> Division:
    """Give each image its part, by the source's own split or else by `held_out` on `content` [N] int64.

    "val" is the test if no image of "test" has a label (where nothing is labelled: if there is no "test"),
    else train. Train images without a label, if others have one, are pretrain-only; such test images are
    left out, as are pretrain-only copies of held-out images. Raises ValueError for a group on both sides of
    the source's own split, for train or test without images or labels, for one class in all and for a class
    that is seen in test only.
    """
    labelled = bool((listing.labels >= 0).any())
    known = (listing.labels >= 0) | (not labelled)
    test_part = next((part for part in ("test", "val") if part in _parts_of(listing, known)), None)
    role = _given_roles(listing, known, test_part)
    notes = [_counted(listing, role == _OUT, "test images without a label, left out")]
    if test_part:
        rule = listing.rule.replace("{}", test_part)
        _check_groups(listing, role)
    else:
        rule = HELD_OUT.format(" per class" if labelled else "")
        rule += ", groups together" if listing.groups else ""
        copies = _hold_out(role, content, listing.labels if labelled else None, listing.group_ids())
        notes.append(
            _counted(listing, copies, "copies of test images, or of their group, left out of pretrain")
        )
    _check_sides(listing, role, labelled)
    if labelled:
        notes.append(_counted(listing, role == _EXTRA, "images for pretraining only"))
        notes += _class_notes(listing, role)
    train, extra, test = ((role == part).nonzero().flatten() for part in (_TRAIN, _EXTRA, _TEST))
    return Division(train, extra, test, rule, tuple(filter(None, notes)))


def _parts_of(listing: Listing, known: Tensor) -> set[str]:
    return {listing.parts[i] for i in known.nonzero().flatten().tolist()}


def _given_roles(listing: Listing, known: Tensor, test_part: str | None) -> Tensor:
    of_known = {"train": _TRAIN, "val": _TRAIN, "pretrain": _EXTRA} | (
        {test_part: _TEST} if test_part else {}
    )
    of_others = {
        "train": _EXTRA,
        "val": _EXTRA if test_part == "test" else _OUT,
        "pretrain": _EXTRA,
        "test": _OUT,
    }
    pairs = zip(listing.parts, known.tolist(), strict=True)
    return torch.tensor([(of_known if is_known else of_others)[part] for part, is_known in pairs])


def _hold_out(role: Tensor, content: Tensor, labels: Tensor | None, groups: Tensor | None) -> Tensor:
    """Move some of train to test, and what is tied to it out of pretrain; returns the mask of the latter."""
    train = (role == _TRAIN).nonzero().flatten()
    chosen = held_out(
        content[train],
        None if labels is None else labels[train],
        None if groups is None else groups[train],
    )
    role[train[chosen]] = _TEST
    is_test = role == _TEST
    tied = torch.isin(content, content[is_test])
    if groups is not None:
        tied |= torch.isin(groups, groups[is_test])
    copies = (role == _EXTRA) & tied
    role[copies] = _OUT
    return copies


def _check_groups(listing: Listing, role: Tensor) -> None:
    if listing.groups is None:
        return
    seen: dict[str, int] = {}
    for index, (group, part) in enumerate(zip(listing.groups, role.tolist(), strict=True)):
        if group and part != _OUT:
            other = seen.setdefault(group, index)
            if (part == _TEST) != (role[other] == _TEST):
                raise ValueError(
                    f"group {group!r} is in test and outside of it ({listing.names[other]}, "
                    f"{listing.names[index]}); put all of it in one split"
                )


def _check_sides(listing: Listing, role: Tensor, labelled: bool) -> None:
    train, test = (listing.labels[role == part] for part in (_TRAIN, _TEST))
    what = "labelled images" if labelled else "images"
    if not len(train):
        raise ValueError(f"there are no {what} to train on, {len(test)} to test; give train some of them")
    if not len(test):
        raise ValueError(
            f"{len(train)} {what} are too few to hold some out as a test: no class has two distinct ones (or "
            "groups); give more"
        )
    if not labelled:
        return
    if unseen := sorted({*test.tolist()} - {*train.tolist()}):
        names = ", ".join(repr(listing.classes[label]) for label in unseen)
        raise ValueError(f"classes seen in test only: {names}; give train images of them, or leave them out")
    if len(set(train.tolist())) == 1:
        raise ValueError(
            f"all labelled images are of one class, {listing.classes[int(train[0])]!r}; label a second "
            "class, or leave the labels out (labels=none)"
        )


def _class_notes(listing: Listing, role: Tensor) -> list[str]:
    train, test = ({*listing.labels[role == part].tolist()} for part in (_TRAIN, _TEST))
    empty = [name for label, name in enumerate(listing.classes) if label not in train]
    untested = [listing.classes[label] for label in sorted(train - test)]
    return [
        f"classes without an image in train, left out: {some(empty)}" if empty else "",
        f"classes without an image in test: {some(untested)}" if untested else "",
    ]


def _counted(listing: Listing, mask: Tensor, text: str) -> str:
    names = [listing.names[index] for index in mask.nonzero().flatten().tolist()]
    return f"{text}: {some(names)}" if names else ""


def some(names: Sequence[str]) -> str:
    """The first of many names and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
