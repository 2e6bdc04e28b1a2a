"""A method that once, in the middle, ends its process or who runs it, and what its cells then have to show."""

import json
from collections import defaultdict
from pathlib import Path

from ssl_zoo.bench.results import Results

STEPS = 8
MORTAL_AT = 5
SMALL = {
    "dataset": "digits",
    "backbone": {"name": "resnet8", "width": 8},
    "batch_size": 64,
    "budget": {"steps": STEPS},
}
RUN = {"device": "cpu", "threads": 1, "log_every": 1, "checkpoint_seconds": 0}

_PLUGIN = f"""
import json, os, signal
from pathlib import Path
from ssl_zoo.methods.byol import BYOL, BYOLConfig
from ssl_zoo.registry import register_method

FOLDER = Path(__file__).parent

class MortalConfig(BYOLConfig):
    end: str = "requeued"

@register_method("mortal")
class Mortal(BYOL):
    Config = MortalConfig

    def on_grads_ready(self, step):
        if step.total != {STEPS}:
            return  # is being measured
        end = self.config.end
        with (FOLDER / f"{{end}}.jsonl").open("a") as steps:
            steps.write(json.dumps([os.getpid(), step.index]) + "\\n")
        if step.index == {MORTAL_AT} and not (FOLDER / end).exists():
            (FOLDER / end).touch()
            pid, number = {{
                "killed": (os.getpid(), signal.SIGKILL),
                "orphaned": (os.getppid(), signal.SIGKILL),
                "requeued": (os.getppid(), signal.SIGUSR2),
            }}[end]
            os.kill(pid, number)
"""
ENDS = ("killed", "orphaned", "requeued")


def mortal_method(folder: Path) -> str:
    """The plug-in in `folder`, which keeps there what has happened."""
    (folder / "mortal_method.py").write_text(_PLUGIN)
    return str(folder / "mortal_method.py")


def spare_them(folder: Path) -> None:
    """From now on no end comes."""
    for end in ENDS:
        (folder / end).touch()


def steps_taken(folder: Path, end: str) -> list[list[int]]:
    """The steps of each process that ran a cell with this end, in order."""
    taken = defaultdict(list)
    for line in (folder / f"{end}.jsonl").read_text().splitlines():
        pid, index = json.loads(line)
        taken[pid].append(index)
    return sorted(taken.values())


def assert_bit_equal(one: Path, other: Path, timeless) -> None:
    """The rows and weights of two benches are the same."""
    first, second = (sorted(map(repr, map(timeless, Results.load(it).rows))) for it in (one, other))
    assert first == second
    for weights in sorted(one.glob("cells/*/encoder.safetensors")):
        assert weights.read_bytes() == (other / weights.relative_to(one)).read_bytes()
