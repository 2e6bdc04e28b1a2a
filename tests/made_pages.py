"""The rule by which the code blocks of our pages are run.

A page runs from top to bottom in a folder of its own, which holds what `prepare` puts there. Names in
capitals stand for what a reader has: DATA, PHOTOS, LABELS.csv.

- A block whose first line is a comment that names a file, `# mine.py` or `# bench.yaml: what for`, is saved
  under that name.
- Any other `python` block is executed; those of one page share their names.
- Each line of a `bash` block is run and has to succeed. `ssl-zoo bench` takes two steps in place of its own
  budget (`short`), so that it is done within seconds; any other `ssl-zoo` command and `python FILE` run as
  written. pip, make and pre-commit prepare an environment and are not run; any other command is an error.
- Blocks of other languages are shown only.
"""

import re
import runpy
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
from made_command import run_here
from made_data import write_parquet
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = ["--budget", "steps=2", "--set", "run.executor=inline", "run.threads=1"]
NARROW = ["backbone.width=8", "--backbone", "resnet8", "--batch-size", "16"]  # unless the line names its own


class Block(NamedTuple):
    """A fenced block: `file` is where to save it, if its first line says so."""

    language: str
    text: str
    file: str | None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order; raises AssertionError for an indented fence, which none runs."""
    assert not re.search(r"^[ >]+```", page, flags=re.M), "a fenced block is indented: it would not be run"
    found = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.M | re.S):
        named = re.match(r"# ([\w./-]+\.\w+)(:.*)?\n", text)
        found.append(Block(language, text, named[1] if named else None))
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
        case ["python", file]:
            runpy.run_path(file, run_name="__main__")
        case _:
            raise AssertionError(f"no rule for {shlex.join(words)}; see made_pages.py")


def short(arguments: list[str]) -> list[str]:
    """The arguments of a bench, its budget replaced and, where they leave the backbone open, a narrow one."""
    if "--budget" in arguments:
        place = arguments.index("--budget")
        arguments = arguments[:place] + arguments[place + 2 :]
    own = {"--backbone", "--config"} & set(arguments)
    return [*arguments, *SHORT, *([] if own else NARROW)]


def prepare(folder: Path) -> None:
    """What a reader has: a clone's examples, DATA with a tiny cifar10, PHOTOS, LABELS.csv of most of them."""
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    for split in ("train", "test"):
        write_parquet(folder / f"DATA/cifar10/{split}-00000-of-00001.parquet", images, np.arange(64) % 10)
        images = 255 - images
    photos = [draw(folder / "PHOTOS", number, rng) for number in range(60)]
    rows = [f"{photo.name},{'disc' if number % 2 else 'box'}" for number, photo in enumerate(photos[:40])]
    (folder / "LABELS.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def draw(folder: Path, number: int, rng: np.random.Generator) -> Path:
    """A photo of a box (even numbers) or a disc, of its own size, mode and format."""
    folder.mkdir(exist_ok=True)
    width, height = (int(side) for side in rng.integers(70, 120, 2))
    image = Image.new("RGB", (width, height), tuple(int(value) for value in rng.integers(0, 100, 3)))
    corner = rng.integers(0, 30, 2)
    box = (*corner.tolist(), *(corner + rng.integers(30, 40)).tolist())
    colour = tuple(int(value) for value in rng.integers(150, 256, 3))
    pen = ImageDraw.Draw(image)
    pen.ellipse(box, colour) if number % 2 else pen.rectangle(box, colour)
    mode, suffix = [("RGB", "jpg"), ("RGBA", "png"), ("L", "jpg"), ("P", "png"), ("CMYK", "jpg")][number % 5]
    file = folder / f"photo-{number:02}.{suffix}"
    image.convert(mode).save(file)
    return file
