"""Keep the numbers of a run of the collapse study, and show them in docs/collapse.md.

ssl-zoo bench --config benchmarks/recipes/collapse_study.yaml --out runs/collapse
python benchmarks/collapse_study.py runs/collapse    or without a folder: only writes the page's table anew
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from ssl_zoo.bench.config import load
from ssl_zoo.registry import method_class

ROOT = Path(__file__).parent.parent
STORED = ROOT / "benchmarks" / "results" / "collapse-study.json"
PAGE = ROOT / "docs" / "collapse.md"
RECIPE = ROOT / "benchmarks" / "recipes" / "collapse_study.yaml"
COMMAND = "ssl-zoo bench --config benchmarks/recipes/collapse_study.yaml"


def configs() -> dict[str, dict[str, Any]]:
    """The whole configuration of each corner's method, as recipe and code have it now, but for its views."""
    found = {}
    for entry in load(RECIPE).methods:
        config = method_class(entry.method).Config.model_validate(entry.options)
        found[entry.label] = config.model_dump(mode="json", exclude={"views"})
    return found


def render(page: str, stored: dict[str, Any]) -> str:
    """The page with the block between `<!-- collapse study -->` and `<!-- end -->` written anew."""
    header = ["corner", "h", "KL", "H(E[Pt])", "k-NN %", "linear %", "feature std", "RankMe"]
    header += ["verdict", "cause", "alarm"]
    rule = ["---", *["---:"] * 7, "---", "---", "---"]
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, rule, *map(_cells, stored["rows"]))]
    block = re.compile(r"(<!-- collapse study -->\n).*?(<!-- end -->)", flags=re.DOTALL)
    return block.sub(lambda found: found[1] + "".join(lines) + found[2], page)


def _cells(row: dict[str, Any]) -> list[str]:
    logged = [row["logged"].get(name) for name in ("teacher_entropy", "kl", "batch_entropy")]
    signs = [row[f"collapse_{what}"] or "-" for what in ("verdict", "cause", "alarm")]
    shares = [f"{100 * row[name]:.1f}" for name in ("knn_top1", "linear_top1")]
    entropies = ["-" if value is None else f"{value:.4f}" for value in logged]
    return [row["label"], *entropies, *shares, f"{row['feature_std']:.3f}", f"{row['rankme']:.1f}", *signs]


def store(folder: Path) -> None:
    """Keep the rows with what was logged last."""
    rows = json.loads((folder / "results.json").read_text())["rows"]
    for row in rows:
        cell = folder / "cells" / f"{row['label']}-seed{row['seed']}"
        row["logged"] = json.loads((cell / "result.json").read_text())["final_metrics"]
        options = json.loads((cell / "cell.json").read_text())["options"]
        row["config"] = {name: value for name, value in options.items() if name != "views"}
    made = {"command": COMMAND, "environment": json.loads((folder / "environment.json").read_text())}
    STORED.write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        store(Path(sys.argv[1]))
    PAGE.write_text(render(PAGE.read_text(), json.loads(STORED.read_text())))
