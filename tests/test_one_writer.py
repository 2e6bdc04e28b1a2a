"""One process writes a folder; who else comes is told who it is."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from made_command import DIGITS, run_here

from ssl_zoo.bench.cells import read_result
from ssl_zoo.bench.lock import one_writer
from ssl_zoo.bench.results import Results

HOLDER = """
import sys, time
from pathlib import Path
from ssl_zoo.bench.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_told_who_holds_the_folder_and_a_dead_ones_lock_is_taken_over(holder, tmp_path):
    words = rf"being written by process {holder.pid} on {socket.gethostname()} since 20\d\d-"
    with pytest.raises(ValueError, match=words), one_writer(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with one_writer(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".lock.json").exists()


def test_a_second_bench_leaves_with_2_and_changes_nothing(holder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert run_here(*DIGITS, "--methods", "byol", "--budget", "steps=2", "--out", tmp_path) == 2
    err = capsys.readouterr().err
    assert f"process {holder.pid}" in err
    assert "give another --out" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_overwriting_keeps_the_folder_held(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("ssl_zoo.bench.write_plan", lambda folder, cells: seen.append(set(folder.iterdir())))
    (tmp_path / "cells").mkdir()
    for name in ("plan.json", "old.txt"):
        (tmp_path / name).write_text("{}")
    command = [*DIGITS, "--methods", "byol", "--budget", "steps=2", "--out", tmp_path, "--overwrite"]
    with pytest.raises(TypeError):  # the plan that was not written cannot be iterated
        run_here(*command)
    assert seen == [{tmp_path / ".lock", tmp_path / ".lock.json"}]


def test_a_damaged_result_is_no_result(tmp_path, caplog):
    (tmp_path / "result.json").write_text('{"status": "do')
    assert read_result(tmp_path) == {}
    assert "is damaged" in caplog.text


def test_what_may_pass_is_tried_again(tmp_path, capsys):
    plugin = tmp_path / "moody_method.py"
    plugin.write_text(
        "import os\n"
        "import signal\n"
        "from pathlib import Path\n"
        "from ssl_zoo.registry import register_method\n"
        "from ssl_zoo.methods.byol import BYOL\n\n"
        "TRIES = Path(__file__).with_name('tries')\n\n"
        "def tries():\n"
        "    TRIES.touch()\n"
        "    TRIES.write_text(TRIES.read_text() + '.')\n"
        "    return len(TRIES.read_text())\n\n"
        "@register_method('moody')\n"
        "class Moody(BYOL):\n"
        "    def on_grads_ready(self, step):\n"
        "        count = tries() if step.index == 3 and step.total == 5 else 3\n"
        "        if count == 1:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        if count == 2:\n"
        "            raise RuntimeError('not now')\n"
    )
    command = [*DIGITS, "--methods", "moody", "--plugin", plugin, "--budget", "steps=5"]
    assert run_here(*command, "--out", tmp_path / "run", "--set", "run.max_restarts=2") == 0
    assert capsys.readouterr().out.count("starts again") == 2
    assert [row["status"] for row in Results.load(tmp_path / "run").rows] == ["done", "done"]
    assert (tmp_path / "tries").read_text() == "..."
    assert not (tmp_path / "run/cells/moody-seed0/error.txt").exists()  # of an attempt that failed
