"""Write what can be computed into the pages: docs/cli.md, and the blocks of others.

python docs/generate.py

A block stands between `<!-- KIND: ARGUMENT -->` and `<!-- end -->`:
fields: METHOD      rows by hand, but for the default, which is the configuration's; every field has its row
recipes: METHOD     the defaults beside benchmarks/recipes, field by field
log: RUN | RUN      what runs of benchmarks/results/mistakes.json logged
says: REFUSAL       an error message of benchmarks/refusals.py, as it is raised now
measured: NAME      the table that benchmarks/NAME.py makes of benchmarks/results/NAME.json
"""

import json
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_zoo.bench.config import load
from ssl_zoo.cli import app
from ssl_zoo.method import MethodConfig
from ssl_zoo.registry import method_class

DOCS = Path(__file__).parent
CLI = DOCS / "cli.md"
BENCHMARKS = DOCS.parent / "benchmarks"
PAGES = [
    *sorted((DOCS / "methods").glob("*.md")),
    DOCS / "scaling.md",
    DOCS / "data.md",
    BENCHMARKS / "gpu.md",
]
sys.path.insert(0, str(DOCS.parent))  # benchmarks import each other

_LOGGED = {
    "teacher_entropy": "h",
    "kl": "KL",
    "batch_entropy": "H(E[Pt])",
    "center_norm": "center norm",
    "teacher_std": "teacher std",
    "target_std": "target std",
    "key_std": "key std",
}


def render() -> str:
    """docs/cli.md: every command with its flags and their help."""
    return "<!-- written by docs/generate.py -->\n\n" + app.generate_docs().strip() + "\n"


def render_blocks(page: str) -> str:
    """A page with its blocks written anew; raises KeyError for a name that is not there."""
    kinds: dict[str, Callable[[str, str], str]] = {
        "fields": fields,
        "recipes": recipes,
        "log": log,
        "says": says,
        "measured": measured,
    }

    def block(found: re.Match[str]) -> str:
        kind, argument, body = found.groups()
        return f"<!-- {kind}: {argument} -->\n{kinds[kind](argument, body)}<!-- end -->"

    return re.sub(r"<!-- (\w+): (.+?) -->\n(.*?)<!-- end -->", block, page, flags=re.DOTALL)


def fields(method: str, body: str) -> str:
    """Rows `| field | symbol | default | reason |` with the default written anew, in the page's order."""
    header, rule, *rows = ([cell.strip() for cell in row[1:-1].split("|")] for row in body.splitlines())
    defaults = settings(method_class(method).Config())
    named = [name.strip("`") for name, *_ in rows]
    if sorted(named) != sorted(defaults):
        raise KeyError(f"{method} has {sorted(defaults)}, its page {sorted(named)}")
    return table(
        header, rule, [[name, symbol, defaults[name.strip("`")], why] for name, symbol, _, why in rows]
    )


def recipes(method: str, _: str) -> str:
    """A column for the defaults and for each paper recipe of the method."""
    columns = {"our default": settings(method_class(method).Config())}
    for file in sorted((BENCHMARKS / "recipes").glob(f"{method}_*.yaml")):
        config = load(file)
        backbone = config.backbone
        assert backbone is not None
        options = "".join(f", {name} {words(value)}" for name, value in backbone.options.items())
        columns[f"[{file.stem}](../../benchmarks/recipes/{file.name})"] = {
            "backbone": backbone.name + options,
            "batch_size": words(config.batch_size),
            "budget.epochs": words(config.budget.epochs),
            **settings(method_class(method).Config(**config.methods[0].options)),
        }
    names = [*list(columns.values())[-1]]
    rows = [[f"`{name}`", *(column.get(name, "any") for column in columns.values())] for name in names]
    return table(["field", *columns], ["---"] * (len(columns) + 1), rows)


def log(labels: str, _: str) -> str:
    """A row per run: the loss at first and last, the rest at the last step."""
    stored = json.loads((BENCHMARKS / "results" / "mistakes.json").read_text())["runs"]
    runs = {label: stored[label] for label in labels.split(" | ")}
    some = next(iter(runs.values()))
    shown = [name for name in _LOGGED if name in some["last"]]
    others = [name for name in some["knn_top1"] if name != "evaluated"]
    header = ["run", "loss, first", "last", *(_LOGGED[name] for name in shown), "k-NN %"]
    header += [f"of the {name} %" for name in others] + ["alarm"]
    rows = []
    for label, run in runs.items():
        alarm = f"{run['alarm']}, step {run['alarm_step']:g}" if run["alarm"] else "-"
        logged = [f"{run['last'][name]:.3f}" for name in shown]
        scores = [f"{100 * run['knn_top1'][name]:.1f}" for name in ("evaluated", *others)]
        losses = [f"{run[when]['loss']:.3f}" for when in ("first", "last")]
        rows.append([label, *losses, *logged, *scores, alarm])
    return table(header, ["---", *["---:"] * (len(header) - 2), "---"], rows)


def says(refusal: str, _: str) -> str:
    """The words of an error, as a block."""
    raised = runpy.run_path(str(BENCHMARKS / "refusals.py"))["REFUSALS"][refusal]()
    return f"```\n{raised}\n```\n"


def measured(name: str, _: str) -> str:
    """The numbers of a benchmark."""
    stored = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())
    made: str = runpy.run_path(str(BENCHMARKS / f"{name}.py"))["table"](stored)
    return made


def settings(config: MethodConfig) -> dict[str, str]:
    """Every field of a configuration in words; `optim` field by field, `views` in a line."""
    values = {name: words(value) for name, value in config if name not in ("optim", "views")}
    values |= {f"optim.{name}": words(value) for name, value in config.optim}
    views = config.views
    crops = [*views.global_views, *[views.local] * views.local_count]
    sizes = Counter(f"{crop.size} px of {crop.scale[0]:g} to {crop.scale[1]:g}" for crop in crops if crop)
    return values | {"views": " + ".join(f"{count} x {size}" for size, count in sizes.items())}


def words(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case tuple():
            return ", ".join(map(words, value))
        case _:
            return str(value)


def table(header: list[str], rule: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


if __name__ == "__main__":
    CLI.write_text(render())
    for page in PAGES:
        page.write_text(render_blocks(page.read_text()))
