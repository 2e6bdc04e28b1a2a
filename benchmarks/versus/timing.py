"""Contenders take turns, so that what disturbs the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Block = Callable[[int], Sequence[float]]
"""Runs so many repetitions and returns the seconds of each, after a warm-up of its own."""


def interleaved(blocks: Mapping[str, Block], rounds: int, repetitions: int) -> dict[str, list[float]]:
    """The median seconds of each round, by contender; a round lets everyone run once, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            seconds[name].append(statistics.median(block(repetitions)))
    return seconds


def repeated(function: Callable[[], object]) -> Block:
    """A block that calls `function`, once more than is timed."""

    def block(repetitions: int) -> list[float]:
        function()
        return [timed(function) for _ in range(repetitions)]

    return block


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
