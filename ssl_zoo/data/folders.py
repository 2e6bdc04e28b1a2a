"""Images in a folder: which files are images, and what the names of its folders say."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ssl_zoo.data.decode import SUFFIXES, shown
from ssl_zoo.data.listing import PARTS, Listing, some


def list_folder(root: Path) -> Listing:
    """List the images below `root`, sorted by their relative path, which is their name.

    An image is told by its suffix; hidden files and folders are skipped; links are followed, but for a link
    to a folder that it lies in. `train/` with `test/` (or `val/`, `valid/`, `validation/`) are parts, and
    `unlabeled/` (`unlabelled/`, `pretrain/`) is for pretraining only. The first-level folders of a part are
    its classes if there are two and all images lie below them, else its images have no labels; a folder
    without images is no class. Raises FileNotFoundError without a folder, ValueError without images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"folder:{root}: there is no such folder; give the path of one with images")
    found = dict(sorted(_walk(os.fspath(root), "", ())))
    if not found:
        raise ValueError(f"folder:{root} holds no images, files that end in {', '.join(sorted(SUFFIXES))}")
    part_of = _part_folders({_first(name) for name in found})
    members: dict[str, list[str]] = {}  # the names below each part folder; "" for all others
    for name in found:
        members.setdefault(_first(name) if _first(name) in part_of else "", []).append(name)
    notes = []
    if "train" in part_of.values() and "" in members:
        notes.append(f"images outside of {'/, '.join(sorted(part_of))}/, left out: {some(members.pop(''))}")
    images: dict[str, tuple[str, str]] = {}  # name: part and class
    for folder, names in members.items():
        part = part_of.get(folder, "train")
        classes, note = ([""] * len(names), "") if part == "pretrain" else _classes(root, folder, names)
        notes.append(note)
        images.update(zip(names, ((part, name) for name in classes), strict=True))
    images = dict(sorted(images.items()))
    known = sorted({name for _, name in images.values()} - {""})
    number = {name: index for index, name in enumerate(known)}
    return Listing(
        files=[found[name] for name in images],
        spans=None,
        names=tuple(images),
        parts=tuple(part for part, _ in images.values()),
        labels=torch.tensor([number.get(name, -1) for _, name in images.values()]),
        classes=tuple(known),
        notes=tuple(filter(None, notes)),
    )


def _walk(folder: str, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Name and path of each image; `above` are the folders that this one lies in."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in _entries(folder):
        name = f"{below}{shown(entry.name)}"
        if os.path.isdir(entry.path):
            yield from _walk(entry.path, f"{name}/", (*above, here))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and (
            os.path.isfile(entry.path) or entry.is_symlink()  # a link to nothing is a missing image
        ):
            yield name, entry.path


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(os.fspath(folder)) if not entry.name.startswith(".")]
    except PermissionError as error:
        raise ValueError(f"{shown(folder)} cannot be read; allow it, or move the folder away") from error


def _first(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _part_folders(tops: set[str]) -> dict[str, str]:
    parts = {top: PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    if "train" in parts.values() and (len(set(parts.values())) > 1 or tops == {*parts}):
        return parts
    # alone, "train" or "test" may well be a class
    pretrain = {top: part for top, part in parts.items() if part == "pretrain"}
    return {} if tops == {*pretrain} else pretrain


def _classes(root: Path, folder: str, names: list[str]) -> tuple[list[str], str]:
    """The class of each image of a part, "" for none, and a note on what was not taken for a class."""
    place = root / folder
    firsts = [_first(name.removeprefix(f"{folder}/") if folder else name) for name in names]
    distinct = {*firsts}
    if len(distinct) > 1 and "" not in distinct:
        folders = {shown(entry.name) for entry in _entries(place) if os.path.isdir(entry.path)}
        empty = sorted(name for name in folders - distinct if folder or name.lower() not in PARTS)
        return firsts, f"folders of {shown(place)} without images, no classes: {some(empty)}" if empty else ""
    note = ""
    if len(distinct) > 1:
        beside = [name for name, first in zip(names, firsts, strict=True) if not first]
        note = f"no classes in {shown(place)}, as images lie beside its folders: {some(beside)}"
    elif "" not in distinct:
        note = f"no classes in {shown(place)}, as all of its images lie in one folder, {firsts[0]}/"
    return [""] * len(names), note
