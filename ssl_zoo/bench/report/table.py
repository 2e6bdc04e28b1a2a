"""One table for terminal, README and page: the cells are made once and rendered thrice."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ssl_zoo.bench.report.summaries import (
    LABEL_FREE,
    TITLES,
    Summary,
    are_unlabelled,
    can_rank,
    finding,
    remarks,
    summary,
)
from ssl_zoo.bench.report.words import count, points, sentence

MISSING = "-"
_METRICS = ("knn_top1", "linear_top1", "map_at_r")
_ASKED = ("finetune_top1", "sgd_probe_top1")  # a column only where it was measured
_DIGITS = {"feature_std": 3, "rankme": 1, "alignment": 3, "uniformity": 2}


class Cell(NamedTuple):
    """A value, its spread over seeds, and whether it is the best of its column."""

    text: str
    spread: str = ""
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} \N{PLUS-MINUS SIGN} {self.spread}" if self.spread else self.text


class Grid(NamedTuple):
    """A header and, per label, its summary and one cell per column."""

    header: list[str]
    lines: list[tuple[Summary, list[Cell]]]


def grid(summaries: Sequence[Summary], primary_metric: str) -> Grid:
    """The table's cells: scores in percent, gain in points, best of a column only from three seeds on.

    Where nothing has labels, what is measured without them takes the place of the scores.
    """
    metrics = list(dict.fromkeys([primary_metric, *_METRICS]))
    asked = [metric for metric in _ASKED if any(metric in item.scores for item in summaries)]
    best = {}
    if can_rank(summaries):
        for metric in [*metrics, *asked]:
            best[metric] = max((s.scores[metric].mean for s in summaries if metric in s.scores), default=None)

    def score(metric: str, item: Summary) -> Cell:
        if metric not in item.scores:
            return Cell(MISSING)
        mean, half_width = item.scores[metric]
        spread = "" if half_width is None else f"{100 * half_width:.1f}"
        return Cell(f"{100 * mean:.1f}", spread, best=mean == best.get(metric))

    def measure(metric: str, item: Summary) -> Cell:
        known = metric in item.scores
        return Cell(f"{item.scores[metric].mean:.{_DIGITS[metric]}f}" if known else MISSING)

    def cost(name: str, item: Summary) -> Cell:
        return Cell(count(item.costs[name]) if name in item.costs else MISSING)

    columns: dict[str, Callable[[Summary], Cell]] = {"label": lambda item: Cell(item.label)}
    if are_unlabelled(summaries):
        columns |= {title: partial(measure, metric) for metric, title in LABEL_FREE.items()}
    else:
        first, *rest = ((_percent(metric), partial(score, metric)) for metric in metrics)
        columns |= dict([first])
        columns["over random"] = lambda item: Cell(points(item.gain.mean) if item.gain else MISSING)
        columns |= {**dict(rest), "RankMe": partial(measure, "rankme")}
    columns["verdict"] = lambda item: Cell(item.verdict)
    columns |= {_percent(metric): partial(score, metric) for metric in asked}
    columns |= {
        "images seen": partial(cost, "images_seen"),
        "seconds": partial(cost, "train_seconds"),
        "images/s": partial(cost, "images_per_second"),
        "status": lambda item: Cell(item.status),
    }
    return Grid(list(columns), [(item, [cell(item) for cell in columns.values()]) for item in summaries])


def _percent(metric: str) -> str:
    return f"{TITLES.get(metric, metric)} %"


def is_text(column: int, header: Sequence[str]) -> bool:
    """Whether a column holds words, which stand to the left, rather than numbers."""
    return header[column] in ("label", "verdict", "status")


class _Fitting:
    """The whole table where its longest words fit the terminal, otherwise its last columns below."""

    def __init__(self, cells: Grid) -> None:
        split = cells.header.index("verdict") + 1
        columns = range(len(cells.header))
        self.whole = _rich_table(cells, columns)
        self.scores = _rich_table(cells, [*columns[:split], columns[-1]])
        self.rest = _rich_table(cells, [0, *columns[split:-1]])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=10_000)
        if Measurement.get(console, unbounded, self.whole).minimum <= options.max_width:
            yield self.whole
        else:
            yield from (self.scores, Text(), self.rest)


def _rich_table(cells: Grid, columns: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        title = cells.header[column]
        justify: JustifyMethod = "left" if is_text(column, cells.header) else "right"
        whole = title in ("label", "verdict")
        table.add_column(Text(title), justify=justify, overflow="fold", no_wrap=whole, vertical="bottom")
    for item, line in cells.lines:
        words = [
            Text(
                f"{line[column]}".replace(" \N{PLUS-MINUS SIGN} ", "\N{PLUS-MINUS SIGN}"),
                style="bold" if line[column].best else "",
            )
            for column in columns
        ]
        table.add_row(*words, style="dim" if item.is_reference else "")
    return table


def render_table(results: Mapping[str, Any]) -> Group:
    """The table for a terminal, with who is ahead, what failed and the notes beneath."""
    summaries, primary, cells = _read(results)
    beneath = [Text(finding(summaries, primary).line)]
    beneath += [Text(remark, style="red") for remark in remarks(results["rows"], primary)]
    beneath += [Text(f"note: {note}", style="yellow") for note in results["bench"].get("notes") or []]
    return Group(Text(sentence(results["bench"]), style="bold"), Text(), _Fitting(cells), Text(), *beneath)


def to_markdown(results: Mapping[str, Any]) -> str:
    """The same table as GitHub Markdown, with the same lines beneath."""
    summaries, primary, cells = _read(results)
    rule = [":---" if is_text(column, cells.header) else "---:" for column in range(len(cells.header))]
    lines = [
        [f"**{_plain(cell)}**" if cell.best else _plain(cell) for cell in line] for _, line in cells.lines
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [cells.header, rule, *lines])
    beneath = [finding(summaries, primary).line, *remarks(results["rows"], primary)]
    beneath += [f"note: {note}" for note in results["bench"].get("notes") or []]
    items = "\n".join(f"- {_plain(line)}" for line in beneath)
    return f"{_plain(sentence(results['bench']))}\n\n{table}\n\n{items}\n"


def _read(results: Mapping[str, Any]) -> tuple[list[Summary], str, Grid]:
    primary = results["bench"].get("primary_metric") or "knn_top1"
    summaries = summary(results["rows"], primary)
    return summaries, primary, grid(summaries, primary)


def _plain(text: object) -> str:
    """Text that Markdown takes literally."""
    return re.sub(r"([\\`*\[|])", r"\\\1", escape(" ".join(str(text).split()), quote=False))


def to_csv_table(results: Mapping[str, Any]) -> str:
    """The same table as CSV."""
    _, _, cells = _read(results)
    lines = [cells.header, *([str(cell) for cell in line] for _, line in cells.lines)]
    return "\n".join(",".join(f'"{text}"' for text in line) for line in lines) + "\n"


def to_latex(results: Mapping[str, Any]) -> str:
    """The same table as LaTeX."""
    _, _, cells = _read(results)
    lines = [cells.header, *([str(cell) for cell in line] for _, line in cells.lines)]
    return "\n".join(" & ".join(line) + r" \\" for line in lines) + "\n"
