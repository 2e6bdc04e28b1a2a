"""A method that once, in the middle, kills its process or who runs it, and what its cells show then."""

import json
from collections import defaultdict
from pathlib import Path

from made_command import timeless
from made_run import small_data

from ssl_zoo.bench.results import Results

STEPS = 9  # a step is measured with another total
MORTAL_AT = 5
RUN = {"device": "cpu", "threads": 1, "log_every": 1, "checkpoint_seconds": 0}


def small(folder: Path, **fields: object) -> dict[str, object]:
    """The fields of a bench of the mortal method on a few images, which lie in `folder`."""
    (folder / "mortal_method.py").write_text(_PLUGIN)
    return {
        "methods": ["mortal"],
        "dataset": "fashion-mnist",
        "data": {"dir": str(small_data(folder))},
        "backbone": {"name": "resnet8", "width": 8},
        "batch_size": 25,
        "budget": {"steps": STEPS},
        "evaluation": {"curve": 1},
        "plugins": [str(folder / "mortal_method.py")],
    } | fields


_PLUGIN = f"""
import json, os, signal
from pathlib import Path
import torch
from ssl_zoo.methods.byol import BYOL, BYOLConfig
from ssl_zoo.registry import register_method

def ray_worker(pid):
    while pid and b"ray::" not in Path(f"/proc/{{pid}}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])
    return pid

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
            steps.write(json.dumps([os.getpid(), step.index, torch.get_num_threads()]) + "\\n")
        if step.index == {MORTAL_AT} and not (FOLDER / end).exists():
            (FOLDER / end).touch()
            me, above = os.getpid(), os.getppid()
            pid = {{"killed": me, "orphaned": ray_worker(above), "requeued": above}}[end]
            number = signal.SIGUSR2 if end == "requeued" else signal.SIGKILL
            os.kill(pid, number)
"""
ENDS = ("killed", "orphaned", "requeued")


def spare_them(folder: Path) -> None:
    """From now on no end comes."""
    for end in ENDS:
        (folder / end).touch()


def steps_taken(folder: Path, end: str) -> list[list[int]]:
    """The steps of each process that ran a cell with this end, in order."""
    taken = defaultdict(list)
    for line in (folder / f"{end}.jsonl").read_text().splitlines():
        pid, index, threads = json.loads(line)
        assert threads == RUN["threads"]
        taken[pid].append(index)
    return sorted(taken.values())


def assert_bit_equal(one: Path, other: Path) -> None:
    """Two benches ended with the same rows and weights."""
    first, second = (sorted(map(repr, map(timeless, Results.load(it).rows))) for it in (one, other))
    assert first == second
    assert first
    for weights in sorted(one.glob("cells/*/encoder.safetensors")):
        assert weights.read_bytes() == (other / weights.relative_to(one)).read_bytes()
