"""Turn a bench folder into a file of `benchmarks/results/`, and into tables of README and docs/results.md.

python benchmarks/publish.py runs/cifar10 cifar10-resnet8-epochs3 "ssl-zoo bench ..."
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from ssl_zoo.bench.report import to_markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGES = [README, ROOT / "docs" / "results.md"]


def render(page: str) -> str:
    """A page with each block `<!-- table: NAME -->` ... `<!-- end -->`, or `made`, from its results file."""

    def block(found: re.Match[str]) -> str:
        kind, name = found.groups()
        stored = json.loads((RESULTS / f"{name}.json").read_text())
        text = to_markdown(stored) if kind == "table" else made(stored["made"])
        return f"<!-- {kind}: {name} -->\n{text}<!-- end -->"

    return re.sub(r"<!-- (table|made): ([\w.-]+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def made(how: dict[str, Any]) -> str:
    """How a results file came to be: its command and machine."""
    machine = how["environment"]
    cores, torch = f"{machine['cores']} cores of {machine['processor']}", f"torch {machine['torch']}"
    gpus = f"{machine['gpus']} beside " if "gpus" in machine else ""
    where = f"{gpus}{cores}, {torch}, {machine['started'][:10]}"
    return f"```\n{how['command']}\n```\n\n{where}\n"


def publish(folder: Path, name: str, command: str) -> None:
    """Copy the results with how they were made, and render the pages anew."""
    stored = json.loads((folder / "results.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    made = {"command": command, "environment": environment}
    (RESULTS / f"{name}.json").write_text(json.dumps({"made": made, **stored}, indent=1) + "\n")
    for page in PAGES:
        page.write_text(render(page.read_text()))


if __name__ == "__main__":
    publish(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
