"""docs/performance.md from the measured numbers: `python -m benchmarks.versus.page`."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "performance.md"

Row = dict[str, Any]


def render(stored: Row) -> str:
    """The page of a results file; every number on it comes from there."""
    made = stored["made"]
    machine = made["environment"]
    versions = ", ".join(f"{name} {machine[name]}" for name in made["packages"])
    left_out = "".join(f"- Left out: {reason}\n" for reason in stored["left_out"])
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
        for side in sides:
            yield spread([1e6 * s for s in seconds[side]], ".0f")
        for peer in peers:
            yield spread(ratio(seconds[peer], seconds["ssl_zoo"]), ".1f")

    head = ["views of a 32 px image", *sides, *(f"times {peer}" for peer in peers)]
    return f"""## Augmentation alone

Microseconds per view, everyone on one core: crop, flip, jitter in random order, grey, and what the row says.
`torchvision` is the official DINO pipeline on PIL images; kornia and ssl_zoo take all views of 128 images at
once.

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

    peaks = ", ".join(f"{max(rates) / 1e9:.0f} GFLOP/s in {name}" for name, rates in gemm.items())
    head = ["task", "MFLOP per image", *(f"share of the peak, {name}" for name in gemm)]
    return f"""## Share of the peak

The fastest product of two large matrices reached {peaks}. FLOPs are those of products and convolutions,
teacher included; seconds are those of the whole step.

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


def ratio(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Round by round, how many times as long the first takes."""
    return [s / f for s, f in zip(slow, fast, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """Median (lowest to highest)."""
    median, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"{median} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(json.loads(RESULTS.read_text())))
