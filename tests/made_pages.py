"""The rule by which the code blocks of our pages are run.

A page runs from top to bottom in a folder of its own, which holds what `prepare` puts there. Names in
capitals stand for what a reader has: PHOTOS, MASKS, CLASSES, LABELS.csv, IMAGES.parquet, DATA, WEIGHTS.pth.

- A block whose first line is a comment that names a file, `# mine.py` or `# bench.yaml: what for`, is saved
  under that name.
- Any other `python` block is executed; those of one page share their names.
- Each line of a `bash` block is run and has to succeed. `ssl-zoo bench` takes two steps in place of its own
  budget (`short`), so that it is done within seconds, and so does `torchrun`; any other `ssl-zoo` command and
  `python FILE` run as written. pip, make and pre-commit prepare an environment and are not run; any other
  command is an error.
- Blocks of other languages are shown only.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from made_command import run_here
from made_data import write_parquet
from made_photos import write_photos
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = ["--budget", "steps=2", "--executor", "inline", "--set", "run.threads=1"]
RANKED = ["--budget", "steps=2", "--backbone", "resnet8", "--set", "backbone.width=8"]
NARROW = ["--backbone", "resnet8", "--batch-size", "16", "--set", "backbone.width=8"]


class Block(NamedTuple):
    """A fenced block: `file` is where to save it, if its first line says so."""

    language: str
    text: str
    file: str | None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order; raises AssertionError for a fence that would not be found."""
    found = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.M | re.S):
        named = re.match(r"# ([\w./-]+\.\w+)(:.*)?\n", text)
        found.append(Block(language, text, named[1] if named else None))
    assert page.count("```") == 2 * len(found), "a fence is indented, not closed or of an odd language"
    return found


def run_page(page: str) -> int:
    """Run the blocks of a page in the current folder; returns how many were executed or saved."""
    names: dict[str, object] = {}
    ran = 0
    for number, block in enumerate(blocks(page), 1):
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, f"block {number}", "exec"), names)
        elif block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                run_line(shlex.split(line, comments=True))
        else:
            continue
        ran += 1
    return ran


def commands(page: Path, executor: str) -> list[list[str]]:
    """The `ssl-zoo` commands of a page that name this executor, as lists of arguments."""
    lines = [
        shlex.split(line, comments=True)
        for block in blocks(page.read_text())
        if block.language == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [words[1:] for words in lines if f"--executor {executor}" in " ".join(words)]


def run_line(words: list[str]) -> None:
    """Run one command of a bash block; raises AssertionError if it fails or is none that the rule knows."""
    match words:
        case [] | [("pip" | "make" | "pre-commit"), *_]:
            pass
        case ["ssl-zoo", "bench", *arguments]:
            code = run_here("bench", *short(arguments))
            assert code == 0, (
                f"exit code {code} of {shlex.join(words)}, run as {shlex.join(short(arguments))}"
            )
        case ["ssl-zoo", *arguments]:
            assert (code := run_here(*arguments)) == 0, f"exit code {code} of {shlex.join(words)}"
        case ["torchrun", *arguments]:
            launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
            subprocess.run([*launched, *RANKED], check=True)
        case ["python", file]:
            runpy.run_path(file, run_name="__main__")
        case _:
            raise AssertionError(f"no rule for {shlex.join(words)}; see made_pages.py")


def short(arguments: list[str]) -> list[str]:
    """The arguments of a bench, its budget and executor replaced; a narrow backbone if they leave it open."""
    for flag in ("--budget", "--executor"):
        if flag in arguments:
            place = arguments.index(flag)
            arguments = arguments[:place] + arguments[place + 2 :]
    own = {"--backbone", "--config"} & set(arguments)
    return [*arguments, *SHORT, *([] if own else NARROW)]


def prepare(folder: Path) -> None:
    """What a reader has: a clone's examples, photos, masks, labels, tables and weights."""
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    photos = write_photos(folder / "CLASSES")
    (folder / "PHOTOS").mkdir()
    (folder / "MASKS").mkdir()
    for photo in photos:
        shutil.copy(photo, folder / "PHOTOS")
        with Image.open(photo) as image:
            mask = Image.new("1", image.size)
            mask.paste(1, (image.width // 4, image.height // 4, image.width // 2, image.height // 2))
        mask.save(folder / "MASKS" / f"{photo.stem}.png")
    rows = [f"{photo.name},{photo.parent.name}" for photo in photos if int(photo.stem[-3:]) < 14]
    (folder / "LABELS.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(64) % 10
    write_parquet(folder / "IMAGES.parquet", images, labels)
    for split, pixels in (("train", images), ("test", 255 - images)):
        write_parquet(folder / f"DATA/cifar10/{split}-00000-of-00001.parquet", pixels, labels)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "WEIGHTS.pth")
