"""A real bench that is killed again and again, and what it has to be in the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_zoo.bench.results import MEASURED, Results

LONGEST = 900  # seconds that a bench may take: only against a hang
PAUSE = 0.01

MOMENTS = ("training", "training", "training", "evaluation", "report", "any")
VICTIMS = ("group", "group", "cell", "spare")
TIMED = set(MEASURED)


class Campaign:
    """Benches of `methods` in `folder`, killed at moments drawn from `seed`; `counts` says what happened.

    Every check is an assertion: what a finished cell has written is never written again, nothing that is
    said or logged holds a traceback, and each bench ends with the rows and weights of one left alone.
    """

    def __init__(self, folder: Path, methods: list[str], steps: int, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.command = [
            *(sys.executable, "-m", "ssl_zoo.cli", "bench", "--dataset", "digits", "--methods", *methods),
            *("--batch-size", "64", "--budget", f"steps={steps}", "--backbone", "resnet8", "--device", "cpu"),
            *("--precision", "fp32", "--set", "backbone.width=8", "run.threads=1", "run.log_every=1"),
            *("run.checkpoint_seconds=0", "evaluation.knn_k=[1, 5]"),
        ]
        began = time.perf_counter()
        self._finish(folder / "whole", "local")
        self.duration = time.perf_counter() - began

    def run(self, kills: int, done: Callable[[Counter[str]], None] = lambda counts: None) -> Counter[str]:
        """Kill `kills` times; each bench is started again until it ends, then the next one begins."""
        number = 0
        while self.counts["kills"] < kills:
            out, ended = self.folder / f"killed-{number}", False
            while self.counts["kills"] < kills and not ended:
                ended = self._lived(out)
                done(self.counts)
            if not ended:
                self._finish(out, "local")
            self._compare(out)
            done(self.counts)
            number += 1
        return self.counts

    def _start(self, out: Path, executor: str) -> subprocess.Popen[str]:
        command = [*self.command, "--out", str(out), "--executor", executor]
        self.counts["starts"] += 1
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )

    def _finish(self, out: Path, executor: str) -> None:
        process = self._start(out, executor)
        code = process.wait(LONGEST)
        self._heard(out)
        assert code == 0, f"exit code {code}: {self._said()}"

    def _lived(self, out: Path) -> bool:
        """Start the bench and kill it, or a process of it; says whether it ended before it was killed."""
        before, moment = _finished(out), self.chance.choice(MOMENTS)
        victim = self.chance.choice(VICTIMS)
        process = self._start(out, self.chance.choice(["local", "inline"]) if victim == "group" else "local")
        killed = self._kill(process, out, moment, victim)
        code = process.wait(LONGEST)
        self._heard(out)
        after = _finished(out)
        assert before.items() <= after.items(), "a finished cell was run again"
        if not killed:
            assert code == 0, f"exit code {code}: {self._said()}"
            return True
        expected = {"group": -signal.SIGKILL, "cell": 1, "spare": 0}[victim]
        assert code == expected, f"exit code {code}: {self._said()}"
        if victim == "cell":
            rows = Results.load(out).rows
            assert sum("SIGKILL" in (row["error"] or "") for row in rows) == 1, rows
        self.counts.update(("kills", f"kills of a {victim}", f"kills at {moment}"))
        return code == 0  # a bench goes on without the process that its cells are forked from

    def _kill(self, process: subprocess.Popen[str], out: Path, moment: str, victim: str) -> bool:
        reached = self._watch(out, moment)
        deadline = time.monotonic() + LONGEST
        while process.poll() is None and time.monotonic() < deadline:
            if reached():
                if victim == "group":
                    os.killpg(process.pid, signal.SIGKILL)
                    return process.wait(LONGEST) != 0
                for spare in children(process.pid):
                    for child in [spare] if victim == "spare" else children(spare):
                        os.kill(child, signal.SIGKILL)
                        return process.wait(LONGEST) != 0 or victim == "spare"  # 0: the cell had ended
            time.sleep(PAUSE)
        assert process.poll() is not None, "the bench hangs"
        return False

    def _watch(self, out: Path, moment: str) -> Callable[[], bool]:
        """Whether the moment has come, and a short random while has passed since."""
        chance = self.chance
        if moment == "any":
            at = time.monotonic() + chance.uniform(0, self.duration)
            return lambda: time.monotonic() >= at
        wait, state = (
            chance.uniform(0, {"training": 0.05, "evaluation": 0.6, "report": 0.4}[moment]),
            {"since": 0.0},
        )
        steps, sizes = chance.randint(1, 4), [_logged(out)]

        def come() -> bool:
            if moment == "training":
                if (size := _logged(out)) != sizes[-1]:
                    sizes.append(size)
                return len(sizes) > steps
            if moment == "evaluation":
                return any(_trained(cell) for cell in out.glob("cells/*"))
            cells = [*out.glob("cells/*/cell.json")]
            return bool(cells) and all((cell.parent / "result.json").exists() for cell in cells)

        def reached() -> bool:
            if not state["since"] and come():
                state["since"] = time.monotonic()
            return bool(state["since"]) and time.monotonic() >= state["since"] + wait

        return reached

    def _heard(self, out: Path) -> None:
        for place in (self.folder / "said.txt", *out.glob("cells/*/log.txt"), *out.glob("cells/*/error.txt")):
            assert "Traceback" not in place.read_text(errors="replace"), place.read_text(errors="replace")

    def _said(self) -> str:
        return (self.folder / "said.txt").read_text(errors="replace")

    def _compare(self, out: Path) -> None:
        """The ended bench is, bit for bit, the one left alone."""
        whole = self.folder / "whole"
        rows = [[_timeless(row) for row in Results.load(place).rows] for place in (whole, out)]
        assert rows[0] == rows[1], rows
        for cell in (whole / "cells").iterdir():
            twin = out / "cells" / cell.name
            assert (cell / "encoder.safetensors").read_bytes() == (twin / "encoder.safetensors").read_bytes()
            assert _records(cell) == _records(twin), cell.name
            assert not [*twin.glob(".*.tmp")], "a temporary file is left"
        self.counts["bit-equal ends"] += 1
        self.counts["bit-equal cells"] += len(rows[0])


def _finished(out: Path) -> dict[str, tuple[int, bytes]]:
    """When and what each finished cell has written."""
    found = {}
    for file in out.glob("cells/*/result.json"):
        text = file.read_bytes()
        if json.loads(text)["status"] == "done":
            found[file.parent.name] = (file.stat().st_mtime_ns, text)
    return found


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _logged(out: Path) -> int:
    return sum(file.stat().st_size for file in out.glob("cells/*/metrics.jsonl"))


def _trained(cell: Path) -> bool:
    """Whether a cell with a method has taken its last step and has no result yet."""
    try:
        steps = json.loads((cell / "cell.json").read_text())["steps"]
        log = (cell / "metrics.jsonl").read_bytes()
    except (FileNotFoundError, ValueError):
        return False
    return log.count(b"\n") >= steps and not (cell / "result.json").exists()


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMED}


def _records(cell: Path) -> list[dict[str, float]]:
    log = cell / "metrics.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [{key: value for key, value in record.items() if "second" not in key} for record in records]
