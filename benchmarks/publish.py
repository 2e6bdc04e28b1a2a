"""Turn a bench folder into a file of `benchmarks/results/` and README's table.

python benchmarks/publish.py runs/cifar10 cifar10-resnet8-epochs3 "ssl-zoo bench ..."
"""

import json
import re
import sys
from pathlib import Path

from ssl_zoo.bench.report import to_markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"


def render(readme: str) -> str:
    """README with each block `<!-- table: NAME -->` ... `<!-- end -->` rendered from its results file."""

    def block(found: re.Match[str]) -> str:
        stored = json.loads((RESULTS / f"{found[1]}.json").read_text())
        return f"<!-- table: {found[1]} -->\n{to_markdown(stored)}<!-- end -->"

    return re.sub(r"<!-- table: ([\w.-]+) -->\n.*?<!-- end -->", block, readme, flags=re.DOTALL)


def publish(folder: Path, name: str, command: str) -> None:
    """Copy the results with how they were made, and render README anew."""
    stored = json.loads((folder / "results.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    made = {"command": command, "environment": environment}
    (RESULTS / f"{name}.json").write_text(json.dumps({"made": made, **stored}, indent=1) + "\n")
    README.write_text(render(README.read_text()))


if __name__ == "__main__":
    publish(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
