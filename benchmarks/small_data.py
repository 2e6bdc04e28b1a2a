"""Render the tables of docs/small-data.md from the kept runs: python -m benchmarks.small_data"""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.tuning import METHODS, stored
from benchmarks.versus.page import average, interval, table
from ssl_zoo.bench.statistics import mean_interval, paired_interval
from ssl_zoo.evaluation.collapse import collapse_cause, collapse_verdict

PAGE = Path(__file__).parent.parent / "docs" / "small-data.md"
SETTING = ("dataset", "backbone", "backbone_options", "classes")  # what an untrained encoder depends on
SCORES = {"knn_top1": "k-NN selection", "ridge_top1": "ridge selection", "test_knn_top1": "k-NN test"}
TARGETS = ("ln K - h", "KL", "cause")  # of methods with prototypes
PAIRS = {
    **{
        study: [(f"{method} chosen{where}", f"{method} default{where}") for method in METHODS]
        for study, where in (("confirm", ""), ("fashion", ", Fashion"), ("vit", ", ViT"))
    },
    "crops": [
        ("dino, 4 local crops", "dino chosen"),
        ("dino, 4 local crops", "dino, as many FLOPs"),
    ],
    "wide": [("dino chosen, width 32", "dino default, width 32")],
    "longer": [("dino chosen, 4x images", "dino default, 4x images")],
}
Line = dict[str, Any]


def render(page: str) -> str:
    """The page with each block `<!-- tuning: KIND NAME -->` ... `<!-- end -->` rendered from its runs."""
    kinds = {"trials": trials, "runs": runs, "against": against}

    def block(found: re.Match[str]) -> str:
        return f"<!-- tuning: {found[1]} {found[2]} -->\n{kinds[found[1]](found[2])}<!-- end -->"

    return re.sub(r"<!-- tuning: (\w+) (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def trials(method: str) -> str:
    """All trials of a method, the best first."""
    lines = [line for line in stored("search") if line["run"]["method"] == method]
    lines.sort(key=lambda line: -line["result"].get("knn_top1", 0))
    names = dict.fromkeys(name for line in lines for name in line["run"]["options"])
    targets = TARGETS if any(map(_prototypes, lines)) else ()
    fields = [name.split(".")[-1] for name in names]
    header = ["trial", "k-NN", "ridge", "TFLOPs", "verdict", *targets, *fields]
    rows = [
        [
            line["run"]["label"],
            *(_percent(line["result"].get(score)) for score in ("knn_top1", "ridge_top1")),
            f"{line['result'].get('train_flops', 0) / 1e12:.1f}",
            _verdict(line),
            *(_targets([line]) if targets else ()),
            *(str(line["run"]["options"].get(name, "-")) for name in names),
        ]
        for line in lines
    ]
    return table(header, rows)


def runs(study: str) -> str:
    """The runs of a study, a row per label with its mean over seeds and 95 % interval."""
    groups: dict[str, list[Line]] = {}
    for line in stored(study):
        groups.setdefault(line["run"]["label"], []).append(line)
    header = ["run", "seeds", "images seen", "TFLOPs", *SCORES.values(), "RankMe", "verdict", *TARGETS]
    rows = [
        [
            label,
            str(len(lines)),
            f"{lines[0]['run']['budget']:,}",
            f"{lines[0]['result']['train_flops'] / 1e12:.1f}",
            *(average(_values(lines, score)) for score in SCORES),
            f"{mean_interval(_values(lines, 'rankme')).mean:.0f}",
            ", ".join(dict.fromkeys(_verdict(line) for line in lines)),
            *_targets(lines),
        ]
        for label, lines in groups.items()
    ]
    return table(header, rows)


def against(study: str) -> str:
    """Paired differences, over the seeds that both have, with 95 % interval."""
    by_label: dict[str, dict[int, Line]] = {}
    for line in chain.from_iterable(map(stored, PAIRS)):
        by_label.setdefault(line["run"]["label"], {})[line["run"]["seed"]] = line
    rows = []
    for first, second in PAIRS[study]:
        ours, theirs = by_label.get(first, {}), by_label.get(second, {})
        seeds = ours.keys() & theirs.keys()
        if not seeds:
            continue

        def scores(lines: dict[int, Line], score: str) -> dict[int, float]:
            return {seed: line["result"][score] for seed, line in lines.items() if score in line["result"]}

        differences = [paired_interval(scores(ours, score), scores(theirs, score)) for score in SCORES]
        rows.append(
            [f"{first} against {second}", str(len(seeds)), *(interval(one, "+") for one in differences)]
        )
    return table(["difference in points", "seeds", *SCORES.values()], rows)


def untrained() -> dict[str, Line]:
    """The untrained encoder of every setting."""
    return {_setting(line): line for line in stored("untrained")}


def _setting(line: Line) -> str:
    return str([line["run"][name] for name in SETTING])


def _verdict(line: Line) -> str:
    result, reference = line["result"], untrained().get(_setting(line))
    finite = result["status"] == "done"
    return collapse_verdict(
        result.get("feature_std", 0.0),
        result.get("rankme", 0.0),
        random_rankme=reference and reference["result"]["rankme"],
        steps=result.get("steps", 0),
        finite=finite,
    )


def _targets(lines: Sequence[Line]) -> list[str]:
    """Means over the runs of what a target has left and of the divergence from it, and every cause."""
    logs = [metrics for line in lines if (metrics := _prototypes(line))]
    if not logs:
        return ["-"] * len(TARGETS)
    left = fmean(log["uniform_entropy"] - log["teacher_entropy"] for log in logs)
    kl = fmean(log["kl"] for log in logs)
    causes = dict.fromkeys(collapse_cause(log) or "-" for log in logs)
    return [f"{left:.3f}", f"{kl:.3f}", ", ".join(causes)]


def _prototypes(line: Line) -> dict[str, float]:
    """What the run logged of its prototypes; the first runs did so without two of the entropies."""
    logged = line["result"].get("final_metrics", {})
    if "teacher_entropy" not in logged:
        return {}
    uniform = math.log(line["result"]["config"]["out_dim"])
    return {"uniform_entropy": uniform, "batch_entropy": logged["teacher_entropy"], **logged}


def _values(lines: Iterable[Line], score: str) -> list[float]:
    return [line["result"][score] for line in lines if score in line["result"]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
