"""The picture and the overlaps of docs/attention.md, made by the page's own code with more steps.

SSL_ZOO_DATA=DATA python -m benchmarks.attention takes a few minutes.
"""

import contextlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ssl_zoo.bench import environment
from ssl_zoo.methods.dino import DINOConfig

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "attention.md"
PICTURE = ROOT / "docs" / "images" / "attention.png"
RESULTS = ROOT / "benchmarks" / "results" / "attention.json"
STEPS = 260


def made_of() -> dict[str, Any]:
    """What the kept results are compared by: the page's code and the method that it trains."""
    scripts = {name: _block(name) for name in ("look.py", "shapes.py")}
    return {"steps": STEPS, **scripts, "config": DINOConfig().model_dump(mode="json")}


def render(page: str, stored: dict[str, Any]) -> str:
    """The page with what the command said between `<!-- overlaps -->` and `<!-- end -->`."""
    said = "".join(f"{line}\n" for line in stored["said"])
    return re.sub(
        r"(<!-- overlaps -->\n```\n).*?(```\n<!-- end -->)", rf"\g<1>{said}\g<2>", page, flags=re.DOTALL
    )


def _block(name: str) -> str:
    found = re.search(rf"^```python\n(# {re.escape(name)}.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    assert found is not None, f"{PAGE} has no block {name}"
    return found[1]


def _run(name: str) -> None:
    Path(name).write_text(re.sub(r"^steps = \d+$", f"steps = {STEPS}", _block(name), flags=re.M))
    runpy.run_path(name, run_name="__main__")


def _attention(*asked: str) -> list[str]:
    """What the command says about the encoder that look.py trains."""
    words = [sys.executable, "-m", "ssl_zoo.cli", "attention", "--encoder", "vit", "--device", "cpu", *asked]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def main() -> None:
    torch.set_num_threads(1)
    made = made_of()
    data = Path(os.environ["SSL_ZOO_DATA"]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("DATA").symlink_to(data)
        _run("look.py")
        _attention("--image", "images")
        shutil.copy("vit/attention/attention.png", PICTURE)
        _run("shapes.py")
        said = _attention("--image", "shapes", "--masks", "marked")[1:]  # the first names a folder
    RESULTS.write_text(
        json.dumps({"made": made, "environment": environment(), "said": said}, indent=1) + "\n"
    )
    PAGE.write_text(render(PAGE.read_text(), {"said": said}))


if __name__ == "__main__":
    main()
