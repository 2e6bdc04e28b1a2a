"""Photos in a folder: what training on them holds in memory, and how many workers keep it fed."""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import App, Parameter
from PIL import Image
from scipy.stats import linregress

import ssl_zoo
from benchmarks.harm.kills import children
from benchmarks.versus import page
from benchmarks.versus.timing import interleaved
from ssl_zoo import Augment, ViewSpec, create_backbone, create_method, fit
from ssl_zoo.bench import environment
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "data.json"
SIDES = (96, 256)  # px
IN_FOLDER = 1000
SIZE = 96  # px of a view
BATCH = 64
_HELD = ("Pss_Anon:", "Pss_Shmem:")
WARM = 4  # steps until workers and buffers are there
PACKAGES = ("ssl-zoo", "torch", "torchvision", "pillow", "numpy")

Record = dict[str, Any]
app = App(name="python -m benchmarks.data")


@app.default
def main(
    *,
    out: Path = RESULTS,
    images: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    steps: int = 300,
    workers: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    rounds: int = 5,
    folder: Path | None = None,
) -> None:
    """Make folders of JPEGs, train on them, and write memory and throughput as JSON.

    Parameters
    ----------
    out
        The JSON file to write.
    images
        How many images the folders have; default 10000 and 100000, which takes 2 GB of disk.
    steps
        How many steps of 64 images are trained while memory is looked at.
    workers
        How many processes decode, one throughput each; default 0, 1, 2 and 4.
    rounds
        How often each number of workers has its turn.
    folder
        Where to make the images; default a temporary folder. They are removed in the end.
    """
    began = time.perf_counter()
    counts = sorted(images or [10_000, 100_000])
    stored: Record = {"batch_size": BATCH, "view_px": SIZE, "sides_px": SIDES, "memory": []}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        os.environ["SSL_ZOO_CACHE"] = f"{name}/cache"
        for count in counts:
            place = Path(name) / f"{count}"
            size = write_photos(place, count)
            row = {"images": count, "bytes_of_files": size, **apart(watched, place, steps)}
            stored["memory"].append(row)
            print(f"[{minutes(began):.1f} min] {words(row)}", flush=True)
        place = Path(name) / f"{counts[0]}"
        stored["throughput"] = apart(throughput, place, workers or [0, 1, 2, 4], rounds)
    for row in stored["throughput"]:
        rates = ", ".join(f"{what} {statistics.median(row[what]):.0f}" for what in ("views", "training"))
        print(f"{row['workers']} workers: images per second: {rates}")
    stored["made"] = {
        "command": "python -m benchmarks.data " + " ".join(sys.argv[1:]),
        "minutes": minutes(began),
        "packages": PACKAGES,
        "threads": torch.get_num_threads(),
        "environment": {**environment(), **{package: version(package) for package in PACKAGES}},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(stored, indent=1) + "\n")


def write_photos(folder: Path, count: int, seed: int = 0) -> int:
    """Write `count` JPEGs of soft colours, sides of 96 to 256 px, a thousand a folder; returns all bytes."""
    rng, written = np.random.default_rng(seed), 0
    for index in range(count):
        place = folder / "photos" / f"{index // IN_FOLDER:03}" / f"{index % IN_FOLDER:03}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        width, height = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
        soft = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        soft.resize((width, height), Image.Resampling.BICUBIC).save(place, quality=85)
        written += place.stat().st_size
    return written


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process, which holds nothing of what came before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def watched(folder: Path, steps: int, workers: int = 2) -> Record:
    """Train on a folder; returns bytes of memory at its parts, and how they grow with the images seen."""
    empty = memory()
    began = time.perf_counter()
    data = ssl_zoo.create_dataset(f"folder:{folder}")
    listed, seconds = memory(), time.perf_counter() - began
    seen: list[tuple[float, int]] = []
    train(data, steps, workers, lambda record: seen.append((record["images_seen"], memory())))
    later = seen[len(seen) // 4 :]  # first workers start, and touch what they were forked with
    line = linregress(*zip(*later, strict=True))
    return {
        "steps": steps,
        "workers": workers,
        "scan_seconds": seconds,
        "empty": empty,
        "listed": listed - empty,
        "seen": seen,
        "slope": line.slope,
        "slope_error": line.stderr,
    }


def throughput(folder: Path, workers: list[int], rounds: int) -> list[Record]:
    """Images per second that are made into views, and trained on, with so many workers, by turns."""
    data = ssl_zoo.create_dataset(f"folder:{folder}")

    def trained(number: int) -> Callable[[int], list[float]]:
        def block(steps: int) -> list[float]:
            ends: list[float] = []
            train(data, steps + WARM, number, lambda record: ends.append(time.perf_counter()))
            return [(ends[-1] - ends[WARM - 1]) / steps]

        return block

    def viewed(number: int) -> Callable[[int], list[float]]:
        split, collate = data.split("pretrain"), MultiCropCollate(spec())
        sampler = Sampler(len(split), BATCH, seed=0)

        def block(steps: int) -> list[float]:
            ends = [
                time.perf_counter()
                for _ in train_views(
                    split, sampler, collate, range(steps + WARM), device=torch.device("cpu"), workers=number
                )
            ]
            return [(ends[-1] - ends[WARM - 1]) / steps]

        return block

    blocks = {("views", number): viewed(number) for number in workers}
    blocks |= {("training", number): trained(number) for number in workers}
    seconds = interleaved(blocks, rounds, 12)  # type: ignore[type-var, arg-type]
    return [
        {
            "workers": number,
            **{what: [BATCH / s for s in seconds[what, number]] for what in ("views", "training")},
        }
        for number in workers
    ]


def spec() -> ViewSpec:
    return ViewSpec(global_views=(Augment(SIZE, scale=(0.2, 1.0)),) * 2)


def train(data: Any, steps: int, workers: int, on_log: Callable[[dict[str, float]], None]) -> None:
    """So many steps of BYOL on a small backbone."""
    torch.manual_seed(0)
    method = create_method("byol", create_backbone("resnet8", image_size=SIZE, width=8), views=spec())
    budget = ssl_zoo.Budget(steps=steps)
    fit(method, data, budget=budget, batch_size=BATCH, log_every=1, workers=workers, on_log=on_log)


def memory() -> int:
    """Bytes that this process and its children hold; what they share counts once (proportional set size).

    Pages of files, such as libraries and the cache, do not count: they are shared with who knows whom, and
    the system takes them back when it needs to.
    """
    return sum(_bytes(pid) for pid in (os.getpid(), *children(os.getpid())))


def _bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(_HELD))


def words(row: Record) -> str:
    seen = row["seen"]
    return (
        f"{row['images']:,} images, {row['bytes_of_files'] / 1e6:.0f} MB of files, read in "
        f"{row['scan_seconds']:.0f} s: {row['listed'] / 1e6:.0f} MB for the list; training "
        f"{seen[len(seen) // 4][1] / 1e6:.0f} MB after {seen[len(seen) // 4][0]:,.0f} images, "
        f"{seen[-1][1] / 1e6:.0f} MB after {seen[-1][0]:,.0f}: "
        f"{row['slope']:+.0f} ± {2 * row['slope_error']:.0f} bytes per image"
    )


def table(stored: Record) -> str:
    """Memory against images seen, a row for each folder; images per second, for each number of workers."""
    held_head = ["images", "MB of files", "MB for the list", "MB in training, early", "late"]
    rows = []
    for row in stored["memory"]:
        seen = row["seen"]
        held = (row["bytes_of_files"], row["listed"], seen[len(seen) // 4][1], seen[-1][1])
        slope = f"{row['slope']:+.0f} ± {2 * row['slope_error']:.0f}"
        rows.append([f"{row['images']:,}", *(f"{size / 1e6:,.0f}" for size in held), slope])
    rates = [
        [str(row["workers"]), *(page.spread(row[what], ".0f") for what in ("views", "training"))]
        for row in stored["throughput"]
    ]
    rates_head = ["workers", "views of so many images a second", "trained on"]
    return f"{page.table([*held_head, 'bytes an image seen'], rows)}\n{page.table(rates_head, rates)}"


def minutes(began: float) -> float:
    return (time.perf_counter() - began) / 60


if __name__ == "__main__":
    app()
