"""The same command in fresh processes gives the same bits, and none of them opens a socket."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_command import DIGITS, ssl_zoo_command, timeless

from ssl_zoo.bench.results import Results

HOOK = """
import os, sys

def hook(event, arguments):
    asked = event in ("socket.getaddrinfo", "socket.connect")
    if asked or (event == "socket.__new__" and arguments[1] in (2, 10)):
        with open(os.environ["OPENED"], "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise PermissionError("this process may not open sockets")

sys.addaudithook(hook)
"""


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """An environment in which each Python process that opens an internet socket fails and is written down."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OPENED": str(tmp_path / "opened")}


def test_the_block_holds(offline: dict[str, str]) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    tried = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert "may not open sockets" in tried.stderr
    assert Path(offline["OPENED"]).exists()


def test_a_bench_opens_no_socket_and_repeats_itself_bit_for_bit(
    offline: dict[str, str], tmp_path: Path
) -> None:
    ends = []
    for name in ("first", "second"):
        out = tmp_path / name
        flags = ["--methods", "dino", "moco", "--budget", "steps=4", "--executor", "inline", "--out", out]
        done = ssl_zoo_command(*DIGITS, "--set", "run.device=cpu", *flags, env=offline)
        assert done.returncode == 0, done.stderr
        rows = [timeless(row) for row in Results.load(out).rows]
        ends.append((rows, [file.read_bytes() for file in sorted(out.glob("cells/*/encoder.safetensors"))]))
    assert ends[0] == ends[1]
    assert len(ends[0][1]) == 3
    assert not Path(offline["OPENED"]).exists()
