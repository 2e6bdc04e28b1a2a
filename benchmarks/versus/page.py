"""docs/performance.md from the measured numbers: `python -m benchmarks.versus.page`."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl_zoo.bench.statistics import Interval, mean_interval, paired_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
LEARNING = sorted(RESULTS.parent.glob("learning*.json"))
PAGE = ROOT / "docs" / "performance.md"

Row = dict[str, Any]


def render(stored: Row) -> str:
    """The page of a results file; every number on it comes from there."""
    made = stored["made"]
    machine = made["environment"]
    versions = ", ".join(f"{name} {machine[name]}" for name in made["packages"])
    left_out = "".join(f"- Left out: {reason}\n" for reason in stored["left_out"])
    again = "; ".join(made.get("again", []))
    left_out += (
        f"- Measured again, by itself, because it had been disturbed or has changed: {again}\n"
        if again
        else ""
    )
    sections = [
        f"""# Performance

One run of `{made["command"]}`: {made["minutes"]:.0f} minutes, {made["threads"]} threads of
{machine["processor"]}, {machine["system"]}, {machine["started"][:10]};
{versions}.

Sides take turns within the run. A cell is the median of the rounds and, in brackets, the lowest and highest;
a ratio is the median of the rounds' ratios.

{left_out}""",
        training(stored["training"]),
        augmentation(stored["augmentation"]),
        parts(stored["parts"]),
        peak(stored["training"], stored["gemm"]),
        growth(stored["growth"]),
        pieces(stored),
        """## Learning is unharmed

The same trainings, equal within a seed but for how pixels or products are computed: k-NN accuracy (%, k = 20)
on all test images of CIFAR-10, its mean over seeds with a 95 % t interval, and differences by seed from fast
views. `exact views` are made by torchvision, image after image, from the same draws; `-` was not run.
""",
        *(learning(json.loads(file.read_text())) for file in LEARNING),
    ]
    return "\n".join(sections)


def training(rows: Sequence[Row]) -> str:
    """Source images per second of both sides, and how many times as fast ours is."""
    sides = list(dict.fromkeys(side for row in rows for side in row["seconds"]))
    peers, ours = ([s for s in sides if s.startswith(who)] for who in ("lightly", "ssl_zoo"))
    ratios = [(mine, peer) for mine in ours for peer in peers]

    def cells(row: Row) -> Iterable[str]:
        seconds = row["seconds"]
        yield row["task"]
        yield str(row["workers"])
        for side in (*peers, *ours):
            yield spread([row["batch_size"] / s for s in seconds[side]], ".0f") if side in seconds else "-"
        for mine, peer in ratios:
            yield spread(ratio(seconds[peer], seconds[mine]), ".1f") if peer in seconds else "-"

    head = ["task", "workers", *peers, *ours, *(f"{mine}: times {peer}" for mine, peer in ratios)]
    return f"""## Training

Source images per second. Both sides train the same backbone (lightly's ResNet-9 at a quarter of its width,
where nothing else is said) with the same heads, views, losses and SGD, batch {rows[0]["batch_size"]}.
`lightly`: as installed, PIL transforms in a DataLoader with that number of workers out of 0, 1 and 2 which
was best for it (ResNet-18, whose step hides them: 0), images decoded beforehand. `lightly, tuned`:
channels_last and, where the hardware multiplies it, bf16: two lines that any user can add (but
SplitBatchNorm, and so MoCo, cannot have channels_last).

{table(head, (cells(row) for row in rows))}"""


def augmentation(rows: Sequence[Row]) -> str:
    """Microseconds per view by library."""
    sides = list(dict.fromkeys(side for row in rows for side in row["seconds"]))
    peers = [side for side in sides if side != "ssl_zoo"]

    def cells(row: Row) -> Iterable[str]:
        seconds = row["seconds"]
        yield row["views"]
        for side in (*peers, "ssl_zoo"):
            yield spread([1e6 * s for s in seconds[side]], ".0f") if side in seconds else "-"
        for peer in peers:
            yield spread(ratio(seconds[peer], seconds["ssl_zoo"]), ".1f") if peer in seconds else "-"

    head = ["views (of a 32 px image)", *peers, "ssl_zoo", *(f"times {peer}" for peer in peers)]
    return f"""## Augmentation alone

Microseconds per view, everyone on one core: crop, flip, jitter in random order, grey, and what the row says.
`official DINO` is its pipeline on PIL images, `torchvision v2` works on uint8 tensors one by one; kornia and
ssl_zoo take all views of a batch at once (128 small images, 64 large ones).

{table(head, (cells(row) for row in rows))}"""


def parts(rows: Sequence[Row]) -> str:
    """Where the milliseconds of our step go."""

    def cells(row: Row) -> Iterable[str]:
        medians = {name: statistics.median(values) for name, values in row["seconds"].items()}
        whole = sum(medians.values())
        yield row["task"]
        for value in medians.values():
            yield f"{1e3 * value:.1f} ({value / whole:.0%})"

    return f"""## Parts of a step

Milliseconds and share of our step, medians. `forward` holds student, teacher and loss; `state` the moving
average, center and queue.

{table(["task", *rows[0]["seconds"]], (cells(row) for row in rows))}"""


def peak(rows: Sequence[Row], gemm: dict[str, list[float]]) -> str:
    """How much of the measured matrix-product peak the whole step reaches, views and optimizer included."""

    def cells(row: Row) -> Iterable[str]:
        yield row["task"]
        yield f"{row['flops'] / row['batch_size'] / 1e6:.0f}"
        for precision, rates in gemm.items():
            seconds = statistics.median(row["seconds"][f"ssl_zoo, {precision}"])
            yield f"{row['flops'] / seconds / max(rates):.0%}"

    reached = ((name, spread([rate / 1e9 for rate in rates], ".0f")) for name, rates in gemm.items())
    peaks = ", ".join(f"{rates} GFLOP/s in {name}" for name, rates in reached)
    head = ["task", "MFLOP per image", *(f"share of the peak, {name}" for name in gemm)]
    return f"""## Share of the peak

Products of two large matrices reached {peaks}.
Their spread shows what other users of the machine take; shares are of the fastest. FLOPs are those of
products and convolutions, teacher included; seconds are those of the whole step.

{table(head, (cells(row) for row in rows))}"""


def growth(rows: Sequence[Row]) -> str:
    """Milliseconds per source image as one thing grows."""
    lines = [
        (row["what"], str(row["value"]), spread([1e3 * s / row["images"] for s in row["seconds"]], ".2f"))
        for row in rows
    ]
    return f"""## Growth

Milliseconds per source image of a DINO step, one thing changed at a time from two 32 px crops, batch 64 and
K = 2048.

{table(["what grows", "value", "ms per image"], lines)}"""


def pieces(stored: Row) -> str:
    """What else takes time, piece by piece."""

    def milliseconds(values: Sequence[float]) -> str:
        return spread([1e3 * value for value in values], ".0f")

    def versus(seconds: Row, peer: str, mine: str) -> list[str]:
        both = [milliseconds(seconds[peer]), milliseconds(seconds[mine])]
        return [*both, spread(ratio(seconds[peer], seconds[mine]), ".1f")]

    loss = [[str(row["K"]), *versus(row["seconds"], "lightly", "ssl_zoo")] for row in stored["losses"]]
    found, compiled = stored["search"], stored["compiled"]
    eager, kernel = (statistics.median(compiled["seconds"][name]) for name in ("eager", "compiled"))
    pays = (
        f"pays from {compiled['compile_seconds'] / (eager - kernel) / 1e6:.1f} million views on"
        if kernel < eager
        else "does not pay"
    )
    per_view = (
        f"{1e6 * eager:.0f} us per 32 px view as they are, on some crops each, and {1e6 * kernel:.0f} us"
    )
    images = stored["losses"][0]["batch_size"]
    neighbours = f"{found['k']} nearest of {found['bank']:,} features of {found['width']} numbers"
    waits = ([name, spread(values, ".1f")] for name, values in stored["waits"].items())
    return f"""## Pieces

DINO's loss of 2 + 6 crops of {images} images, forward and backward, in milliseconds:

{table(["K", "lightly", "ssl_zoo", "times lightly"], loss)}
The {neighbours} for {found["queries"]:,} images, in milliseconds; on a CPU faiss is what is used:

{table(["torch", "faiss", "times torch"], [versus(found["seconds"], "torch", "faiss")])}
Colour operations take {per_view} compiled;
compiling takes {compiled["compile_seconds"]:.0f} s where it has not been done before, so it {pays}.
Views are a few percent of a step (above): ssl_zoo does not compile them.

Seconds until a command answers, and until a bench of the digits has taken its first training step:

{table(["command", "seconds"], waits)}
Nearly all of that is importing torch and scikit-learn. On Linux a bench does so once, while it is
planned: its cells are forked from the process that has.
"""


def learning(stored: Row) -> str:
    """k-NN accuracies of the same trainings with other arithmetic, and their differences by seed."""
    made, first, scores = stored["made"], "fast views", defaultdict(dict)
    for run in stored["runs"]:
        scores[run["method"], run["variant"]][run["seed"]] = run["knn_top1"]
    methods = dict.fromkeys(method for method, _ in scores)
    others = sorted({variant for _, variant in scores} - {first})

    def cells(method: str) -> Iterable[str]:
        yield method
        for variant in (first, *others):
            yield average([*scores.get((method, variant), {}).values()])
        for variant in others:
            yield interval(paired_interval(scores.get((method, variant), {}), scores[method, first]), "+")

    machine, seeds = made["environment"], max(map(len, scores.values()))
    on = machine.get("gpus", machine["processor"])
    return f"""{made["epochs"]} epochs on {made["images"]:,} images, {seeds} seeds
({made["backbone"]}, batch {made["batch_size"]}, on {on}):

{table(["method", first, *others, *(f"{variant}: difference" for variant in others)], map(cells, methods))}"""


def average(values: Sequence[float]) -> str:
    """The mean of shares as `interval` writes it."""
    return interval(mean_interval(values) if values else None)


def interval(found: Interval | None, sign: str = "") -> str:
    """A share in percent, or with the sign "+" a difference of shares in points, and its half width."""
    if found is None:
        return "-"
    mean, half_width = found
    return f"{100 * mean:{sign}.1f}" + ("" if half_width is None else f" ± {100 * half_width:.1f}")


def ratio(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Round by round, how many times as long the first takes."""
    return [s / f for s, f in zip(slow, fast, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """Median (lowest to highest)."""
    if len(values) == 1:
        return format(values[0], form)
    median, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"{median} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(json.loads(RESULTS.read_text())))
