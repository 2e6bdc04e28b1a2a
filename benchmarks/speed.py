"""The whole comparison in one run; prints each section as it is measured."""

import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter

from benchmarks.versus import augmentation, page, pieces, sections
from benchmarks.versus.sections import HAS_BF16, Effort
from benchmarks.versus.tasks import LARGE, TASKS
from ssl_zoo.bench import environment

PACKAGES = ("ssl-zoo", "torch", "torchvision", "lightly")
app = App(name="python -m benchmarks.speed")


@app.default
def main(
    *,
    out: Path,
    quick: Annotated[bool, Parameter(negative="")] = False,
    again: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
) -> None:
    """Measure ssl_zoo beside lightly, torchvision and kornia on the CPU of this machine.

    Parameters
    ----------
    out
        The JSON file to write; `python -m benchmarks.versus.page` renders benchmarks/results/speed.json.
    quick
        A few minutes, too few repetitions to publish; else about a quarter of an hour.
    again
        What in `out` was disturbed or has changed since, such as "BYOL" or "waits": measure this alone again.
    """
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", ".*weight_norm. is deprecated", FutureWarning)  # lightly's
    effort = Effort(rounds=2, steps=1) if quick else Effort(rounds=5, steps=3)
    if again:
        out.write_text(
            json.dumps(measured_again(json.loads(out.read_text()), again, effort), indent=1) + "\n"
        )
        return
    began = time.perf_counter()
    stored: page.Row = {"left_out": left_out(quick), "gemm": sections.gemm(effort)}
    for reason in stored["left_out"]:
        print(f"left out: {reason}")

    def show(section: str) -> None:
        print(f"[{(time.perf_counter() - began) / 60:.1f} min] {section}", flush=True)

    measures = _measures(effort)
    stored["augmentation"] = measures["augmentation"]()
    show(page.augmentation(stored["augmentation"]))
    stored["training"] = []
    for task in TASKS if quick else (*TASKS, LARGE):
        stored["training"].append(sections.training(effort, task))
        show(f"{task.name} measured")
    show(page.training(stored["training"]))
    show(page.peak(stored["training"], stored["gemm"]))
    stored["parts"] = measures["parts"]()
    show(page.parts(stored["parts"]))
    stored["growth"] = sections.growth(effort)
    show(page.growth(stored["growth"]))
    stored["losses"] = pieces.losses(effort.rounds)
    stored["search"] = pieces.searches(effort.rounds)
    stored["compiled"], stored["waits"] = measures["compiled"](), measures["waits"]()
    show(page.pieces(stored))
    packages = [*PACKAGES, *(["kornia"] if augmentation.HAS_KORNIA else [])]
    stored["made"] = {
        "command": "python -m benchmarks.speed " + " ".join(sys.argv[1:]),
        "minutes": (time.perf_counter() - began) / 60,
        "packages": packages,
        "threads": torch.get_num_threads(),
        "environment": {**environment(), **{name: version(name) for name in packages}},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(stored, indent=1) + "\n")


def _measures(effort: Effort) -> dict[str, Callable[[], Any]]:
    """What is measured by itself, under its name in the results."""
    return {
        "augmentation": lambda: augmentation.measure(augmentation.CASES, effort.rounds, effort.steps),
        "parts": lambda: [sections.parts(effort, task) for task in TASKS],
        "compiled": lambda: pieces.compiled_colour(effort.rounds),
        "waits": lambda: pieces.waits(effort.rounds),
    }


def measured_again(stored: page.Row, names: list[str], effort: Effort) -> page.Row:
    """The stored results with what has these names measured anew, and a word about it."""
    tasks = {task.name: task for task in (*TASKS, LARGE)}
    measures = _measures(effort)
    if unknown := set(names) - tasks.keys() - measures.keys():
        raise SystemExit(f"no {min(unknown)!r}; there are {', '.join([*tasks, *measures])}")
    stored |= {name: measures[name]() for name in measures.keys() & set(names)}
    rows = {row["task"]: row for row in stored["training"]}
    stored["training"] = [
        sections.training(effort, tasks[name]) if name in names else row for name, row in rows.items()
    ]
    when = time.strftime("%Y-%m-%d %H:%M")
    stored["made"]["again"] = [*stored["made"].get("again", []), f"{', '.join(names)} ({when})"]
    print(page.training(stored["training"]))
    return stored


def left_out(quick: bool) -> list[str]:
    """What this run does not measure, and why."""
    reasons = []
    if not HAS_BF16:
        reasons.append("bf16, which this CPU cannot multiply (neither avx512_bf16 nor AMX)")
    if not augmentation.HAS_KORNIA:
        reasons.append("kornia, which is not installed (pip install 'ssl-zoo[bench]')")
    if quick:
        reasons.append(f"{LARGE.name}, and enough repetitions, because of --quick")
    return reasons


if __name__ == "__main__":
    app()
