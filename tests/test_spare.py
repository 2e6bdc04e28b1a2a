"""Cells forked from the spare process: as those that start by themselves, whatever happens to whom."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_command import DIGITS, run_here, timeless

from ssl_zoo import spare as spares
from ssl_zoo.bench.config import load
from ssl_zoo.bench.executors import local
from ssl_zoo.bench.plan import plan
from ssl_zoo.spare import fork, spare

pytestmark = pytest.mark.skipif(not spares._CAN_FORK, reason="cells are forked on Linux alone")

STEPS = 6
PLUGIN = f"""
import json, os, signal, sys, time
import torch
from threadpoolctl import threadpool_info
from ssl_zoo.methods.byol import BYOL, BYOLConfig
from ssl_zoo.registry import register_method

class ActingConfig(BYOLConfig):
    act: str = ""

@register_method("acting")
class Acting(BYOL):
    Config = ActingConfig

    def on_grads_ready(self, step):
        act = self.config.act if step.index == 2 and step.total == {STEPS} else ""
        if act == "tell":
            pools = [(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()]
            variables = [os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
            told = [pools, variables, torch.get_num_threads(), torch.cuda.is_initialized(), os.getppid()]
            print("words of a library")
            os.write(2, json.dumps(told).encode())
            torch.ones(2**27)
        elif act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "kill the spare":
            os.kill(os.getppid(), signal.SIGKILL)
        elif act == "sleep":
            time.sleep(600)
"""
BENCH = """
import sys, time
from pathlib import Path
from ssl_zoo import spare
with spare.spare(), open(Path(sys.argv[1]).with_name("log.txt"), "ab") as log:
    import ssl_zoo.bench
    print(int("sklearn" in sys.modules))
    cell = spare.fork(Path(sys.argv[1]), log)
    print(cell.pid, spare._kept[0]._process.pid, flush=True)
    for line in cell.stdout:
        print(line.decode(), end="", flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Writes the folder of a cell that acts so; returns the cell and the folder."""
    place = tmp_path_factory.mktemp("cells")
    plugin = place / "acting_method.py"
    plugin.write_text(PLUGIN)
    fields = {
        "methods": ["byol"],
        "dataset": "digits",
        "backbone": {"name": "resnet8", "width": 8},
        "batch_size": 64,
        "budget": {"steps": STEPS},
        "run": {"device": "cpu", "log_every": 1, "threads": 1},
    }
    planned = plan(load(fields=fields)).cells[1]

    def make(act, **changes):
        acting = {"method": "acting", "plugins": [str(plugin)], "options": {**planned.options, "act": act}}
        cell = planned.model_copy(update={**acting, **changes})
        folder = place / f"{act or 'plain'}-{len(list(place.iterdir()))}"
        folder.mkdir()
        (folder / "cell.json").write_text(cell.model_dump_json())
        return cell, folder

    return make


@pytest.fixture(scope="module")
def ready():
    """A spare process for all tests of this file."""
    with spare():
        yield


def run(made):
    """The status of a cell that the executor runs, its events and its result."""
    events = []
    status = local(*made, events.append)
    return status, events, json.loads((made[1] / "result.json").read_text())


def forked(made):
    folder = made[1]
    with (folder / "log.txt").open("ab") as log:
        process = fork(folder / "cell.json", log)
    assert process is not None
    return process


def until_step(process, step):
    """Read what a cell says, up to its record of `step`."""
    for line in process.stdout:
        if json.loads(line).get("step") == step:
            return


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_cell_has_the_threads_planned_and_its_words_are_kept(made, ready):
    cell = made("tell", threads=2)
    status, events, result = run(cell)
    assert status == "done"
    told = ["starting", "training", *["log"] * STEPS, "evaluating", "finished"]
    assert [event["event"] for event in events] == told
    pools, variables, torchs, cuda, parent = json.loads((cell[1] / "log.txt").read_text())
    assert {api for api, _ in pools} == {"blas", "openmp"}
    assert {count for _, count in pools} == {2}
    assert (variables, torchs) == (["2", "2"], 2)
    assert not cuda
    assert parent == spares._kept[0]._process.pid
    (cell[1].parent / "peak").write_text(str(result["peak_memory_bytes"]))


def test_the_next_one_is_bit_equal_to_one_alone_and_counts_its_own_memory(made, ready, monkeypatch):
    forked_cell, alone = made(""), made("")
    status, _, result = run(forked_cell)
    assert status == "done"
    monkeypatch.setattr(spares, "_kept", [])
    held = torch.ones(2**28)  # a gigabyte of the process that starts the cell, which is not the cell's
    assert run(alone)[0] == "done"  # by `ssl-zoo run-cell`
    del held
    theirs = json.loads((alone[1] / "result.json").read_text())
    assert timeless(result) == timeless(theirs)
    first, second = ((folder / "encoder.safetensors").read_bytes() for _, folder in (forked_cell, alone))
    assert first == second
    assert 0.4 < result["peak_memory_bytes"] / theirs["peak_memory_bytes"] < 1.1
    assert result["peak_memory_bytes"] + 2**28 < int((alone[1].parent / "peak").read_text())


def test_a_killed_cell_is_a_failed_row_with_the_signal_and_the_spare_lives(made, ready):
    before = spares._kept[0]
    status, _, result = run(made("die"))
    assert status == result["status"] == "failed"
    assert "ended by SIGKILL" in result["error"]
    assert spares._kept[0] is before
    assert before._process.poll() is None


def test_sigterm_leaves_a_checkpoint_within_a_step(made, ready):
    cell = made("", shared=made("")[0].shared.model_copy(update={"steps": 3000}))
    process = forked(cell)
    with process.stdout:
        until_step(process, 1)
        process.send_signal(signal.SIGTERM)
        events = [json.loads(line)["event"] for line in process.stdout]
    assert process.wait() == 130
    assert events[-1] == "stopped"
    assert (cell[1] / "checkpoint.pt").exists()
    assert not (cell[1] / "result.json").exists()


def test_a_second_interrupt_leaves_now(made, ready):
    process = forked(made("sleep"))
    with process.stdout:
        until_step(process, 2)
        time.sleep(0.5)  # it is asleep in the third step
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)  # else they may arrive as one
        assert process.stdout.read() == b""
    assert process.wait() == 130


def test_the_death_of_the_spare_costs_no_cell_and_a_new_one_comes(made, ready):
    before = spares._kept[0]
    assert run(made("kill the spare"))[0] == "done"
    cell = made("")
    with (cell[1] / "log.txt").open("ab") as log:
        assert fork(cell[1] / "cell.json", log) is None
    assert spares._kept[0] is not before
    assert not alive(before._process.pid)
    process = forked(cell)
    with process.stdout:
        until_step(process, 1)
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_when_a_bench_is_killed_its_cell_leaves_after_a_step_and_nothing_is_left(made):
    _, folder = made("", shared=made("")[0].shared.model_copy(update={"steps": 3000}))
    command = [sys.executable, "-c", BENCH, folder / "cell.json"]
    bench = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert bench.stdout.readline() == "0\n", "a bench imports scikit-learn, which takes seconds"
    cell, waiting = map(int, bench.stdout.readline().split())
    with bench.stdout:
        until_step(bench, 1)
        bench.kill()
        bench.wait()
    deadline = time.monotonic() + 300  # only against a hang
    while alive(cell) or alive(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()


def test_a_spare_is_not_left_behind_where_nothing_can_run_and_not_started_for_a_dry_run(
    tmp_path, monkeypatch, capsys
):
    started = []
    real = subprocess.Popen

    def popen(command, **options):
        process = real(command, **options)
        if "ssl_zoo.bench.process" in command:
            started.append(process)
        return process

    monkeypatch.setattr("ssl_zoo.spare.subprocess.Popen", popen)
    monkeypatch.setattr(spares, "_kept", [])
    bench = [*DIGITS, "--budget", "steps=2", "--out", tmp_path / "run", "--methods"]
    assert run_here(*bench, "byol", "--dry-run") == run_here(*bench, "byol", "--executor", "inline") == 0
    assert started == []
    assert run_here(*bench, "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err
    assert [process.poll() for process in started] == [-signal.SIGKILL]
    assert spares._kept == []
