"""The fault campaign: a bench is killed, misconfigured and fed broken images, and must never lose or lie."""

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.strategies import SearchStrategy

from benchmarks.harm import configs, images
from benchmarks.harm.kills import Campaign
from ssl_zoo.bench import environment
from ssl_zoo.cli import main as command_line
from ssl_zoo.registry import list_methods

app = App(name="python -m benchmarks.faults")


@app.default
def main(
    *,
    out: Path,
    kills: int = 100,
    bad_configs: int = 1000,
    bad_images: int = 500,
    methods: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    steps: int = 12,
    seed: int = 0,
) -> None:
    """Run the campaign; any failure ends it with what was seen. About half an hour on two cores.

    Parameters
    ----------
    out
        The JSON file with the counts, written anew after every kill.
    kills
        How often a real bench, or one of its cells, is killed by SIGKILL.
    bad_configs
        How many wrong configurations are given to the command line.
    bad_images
        How many broken images are decoded, and then given to a bench as a folder.
    methods
        The methods of the bench that is killed; default all.
    steps
        How many steps each of them takes.
    seed
        Draws the moments, the configurations and the images.
    """
    began, stored = time.perf_counter(), dict[str, Any]()
    out.parent.mkdir(parents=True, exist_ok=True)

    def keep(part: str, counts: Counter[str]) -> None:
        stored[part] = dict(sorted(counts.items()))
        stored["made"] = {
            "command": "python -m benchmarks.faults " + " ".join(sys.argv[1:]),
            "minutes": round((time.perf_counter() - began) / 60, 1),
            "environment": environment(),
        }
        out.write_text(json.dumps(stored, indent=1) + "\n")
        print(f"[{stored['made']['minutes']:5.1f} min] {part}: {stored[part]}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if bad_configs:
            keep("configs", refuse_configs(folder, bad_configs, seed))
        if bad_images:
            keep("images", judge_images(folder, bad_images, seed))
        if kills:
            campaign = Campaign(folder, methods or list_methods(), steps, seed)
            keep("kills", campaign.run(kills, lambda counts: keep("kills", counts)))


def refuse_configs(folder: Path, count: int, seed: int) -> Counter[str]:
    """Give so many wrong configurations to the command line; counts what it said."""
    counts: Counter[str] = Counter()

    def refuse(bad: configs.Bad) -> None:
        message = configs.refusal(bad, folder)
        counts.update(["refused", "of one line" if message.count("\n") == 1 else "of several lines"])

    _many(refuse, configs.bad_commands, count, seed)
    return counts


def judge_images(folder: Path, count: int, seed: int) -> Counter[str]:
    """Decode so many broken images, and plan a bench on a folder of them; counts what became of them."""
    counts: Counter[str] = Counter()
    place = folder / "photos"
    for label in ("a", "b"):
        (place / label).mkdir(parents=True)
        for index, (kind, mode) in enumerate(images.FORMATS):
            if mode != "F":  # floats need data.window
                (place / label / f"good-{index}.{kind}").write_bytes(
                    images.encoded(kind, mode, (40 + index, 48))
                )

    def judge(made: tuple[str, bytes]) -> None:
        kind, data = made
        number = counts.total()
        path = place / "ab"[number % 2] / f"bad-{number}.{kind}"
        counts[images.judged(kind, data, path)] += 1

    _many(judge, images.broken_images(), count, seed)
    shutil.copytree(place, folder / "all")
    flags = ["--methods", "byol", "--dataset", f"folder:{folder / 'all'}", "--set", "data.on_bad_image=skip"]
    flags += ["backbone.width=8", "--backbone", "resnet8", "--image-size", "32", "--dry-run", "--quiet"]
    code: object = None
    try:
        command_line(["bench", *flags, "--out", str(folder / "run")])
    except SystemExit as left:
        code = left.code
    assert code == 0, f"exit code {code}"
    counts["bench on the folder"] += 1
    return counts


def _many(check: Callable[[Any], None], made: SearchStrategy[Any], count: int, seed: int) -> None:
    """`check` what is `made` until `count` were."""
    done = 0

    def counted(example: Any) -> None:
        nonlocal done
        check(example)
        done += 1

    options = settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's words on broken files
        while done < count:  # hypothesis stops early where it has seen a corner whole
            seeded(seed + done)(options(given(made)(counted)))()


if __name__ == "__main__":
    app()
