"""One table for terminal, page, README, paper and spreadsheet: its cells are made once."""

import csv
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ssl_zoo.bench.report.comparison import Comparison, compare, finding
from ssl_zoo.bench.report.summaries import (
    LABEL_FREE,
    TITLES,
    Summary,
    are_unlabelled,
    primary_of,
    remarks,
    summary,
)
from ssl_zoo.bench.report.words import count, p_value, points, sentence

MISSING = "-"
_P = "p (Holm)"
_METRICS = ("knn_top1", "linear_top1", "map_at_r")
_ASKED = ("finetune_top1", "sgd_probe_top1")  # a column only where it was measured
_DIGITS = {"feature_std": 3, "rankme": 1, "alignment": 3, "uniformity": 2}


class Cell(NamedTuple):
    """A value, its spread over seeds, and whether it is the best method's."""

    text: str
    spread: str = ""
    best: bool = False

    def __str__(self) -> str:
        return f"{self.text} \N{PLUS-MINUS SIGN} {self.spread}" if self.spread else self.text


class Grid(NamedTuple):
    """A header and, per label, its summary and one cell per column."""

    header: list[str]
    lines: list[tuple[Summary, list[Cell]]]


def grid(bench: Mapping[str, Any], summaries: Sequence[Summary]) -> Grid:
    """The table's cells: scores in percent, differences in points; the best where that is decided.

    From three seeds on, the differences to the reference method have columns too. Where nothing has labels,
    what is measured without them takes the place of the scores.
    """
    metrics = list(dict.fromkeys([primary_of(bench), *_METRICS]))
    pairs = {pair.method.label: pair for pair in compare(bench, summaries)}
    asked = [metric for metric in _ASKED if any(metric in item.scores for item in summaries)]
    winner = _winner(pairs.values(), metrics[0])

    def score(metric: str, item: Summary) -> Cell:
        if metric not in item.scores:
            return Cell(MISSING)
        mean, half_width = item.scores[metric]
        spread = "" if half_width is None else f"{100 * half_width:.1f}"
        best = metric == metrics[0] and item.label == winner
        return Cell(f"{100 * mean:.1f}", spread, best)

    def difference(item: Summary) -> Cell:
        if item.label not in pairs:
            return Cell(MISSING)
        mean, half_width = pairs[item.label].difference
        return Cell(points(mean), f"{half_width:.1f}")

    def chance(item: Summary) -> Cell:
        if item.label not in pairs:
            return Cell(MISSING)
        return Cell(p_value(pairs[item.label].p).removeprefix("p ").removeprefix("= ").replace("< ", "<"))

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
        for pair in list(pairs.values())[:1]:
            columns |= {f"over {pair.reference.label}": difference, _P: chance}
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


def _winner(pairs: Collection[Comparison], primary: str) -> str:
    """The method with the highest mean if its difference to the reference, or all to it, are decided."""
    if not pairs:
        return ""
    first = max((pair.in_order[0] for pair in pairs), key=lambda item: item.scores[primary].mean)
    return first.label if all(pair.is_decided for pair in pairs if first in pair.in_order) else ""


def _percent(metric: str) -> str:
    return f"{TITLES.get(metric, metric)} %"


def is_text(column: int, header: Sequence[str]) -> bool:
    """Whether a column holds words, which stand to the left, rather than numbers."""
    return header[column] in ("label", "verdict", "status")


class _Fitting:
    """The whole table where its longest words fit the terminal, else comparison and last columns below."""

    def __init__(self, cells: Grid) -> None:
        split = cells.header.index("verdict") + 1
        columns = range(len(cells.header))
        compared = [place + step for place in columns if cells.header[place] == _P for step in (-1, 0)]
        scores = [column for column in columns[:split] if column not in compared]
        self.whole = _rich_table(cells, columns)
        self.scores = _rich_table(cells, [*scores, columns[-1]])
        self.rest = _rich_table(cells, [0, *compared, *columns[split:-1]])

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


def render_table(results: Mapping[str, Any], folder: Path | None = None) -> Group:
    """The table for a terminal, with who is ahead, what failed and the notes beneath."""
    cells, beneath = _read(results, folder)
    lines = [Text(line, style={"remark": "red", "note": "yellow"}.get(kind, "")) for kind, line in beneath]
    return Group(Text(sentence(results["bench"]), style="bold"), Text(), _Fitting(cells), Text(), *lines)


def to_markdown(results: Mapping[str, Any], folder: Path | None = None) -> str:
    """The same table as GitHub Markdown, with the same lines beneath."""
    cells, beneath = _read(results, folder)
    rule = [":---" if is_text(column, cells.header) else "---:" for column in range(len(cells.header))]
    lines = [
        [f"**{_plain(cell)}**" if cell.best else _plain(cell) for cell in line] for _, line in cells.lines
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [cells.header, rule, *lines])
    items = "\n".join(f"- {_plain(line)}" for _, line in beneath)
    return f"{_plain(sentence(results['bench']))}\n\n{table}\n\n{items}\n"


def to_csv_table(results: Mapping[str, Any]) -> str:
    """The same cells as CSV for a spreadsheet: half widths in columns of their own, empty where missing.

    The rows behind them are `Results.to_csv`.
    """
    cells, _ = _read(results, None)
    spread = [any(line[column].spread for _, line in cells.lines) for column in range(len(cells.header))]
    rows = [[(title, f"{title} \N{PLUS-MINUS SIGN}") for title in cells.header]]
    for _, line in cells.lines:
        texts = [
            cell.text if is_text(column, cells.header) else cell.text.replace(",", "")
            for column, cell in enumerate(line)
        ]
        rows.append(
            [("" if text == MISSING else text, cell.spread) for text, cell in zip(texts, line, strict=True)]
        )
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [text for cell, own in zip(row, spread, strict=True) for text in cell[: 1 + own]] for row in rows
    )
    return out.getvalue()


def to_latex(results: Mapping[str, Any], folder: Path | None = None) -> str:
    """The same cells as a LaTeX `tabular` that needs no package; the lines beneath are comments."""
    cells, beneath = _read(results, folder)
    sides = "".join("l" if is_text(column, cells.header) else "r" for column in range(len(cells.header)))
    lines = [
        [f"\\textbf{{{_latex(cell)}}}" if cell.best else _latex(cell) for cell in line]
        for _, line in cells.lines
    ]
    header, *rows = (f"{' & '.join(line)} \\\\" for line in [map(_latex, cells.header), *lines])
    comments = (
        f"% {' '.join(line.split())}" for line in [sentence(results["bench"]), *(text for _, text in beneath)]
    )
    begin, end = f"\\begin{{tabular}}{{{sides}}}", "\\end{tabular}"
    return "\n".join([*comments, begin, "\\hline", header, "\\hline", *rows, "\\hline", end, ""])


def _read(results: Mapping[str, Any], folder: Path | None) -> tuple[Grid, list[tuple[str, str]]]:
    """The cells, and what stands beneath them: lines by kind, "finding", "remark" or "note"."""
    bench, rows = results["bench"], results["rows"]
    primary = primary_of(bench)
    summaries = summary(rows, primary)
    line, basis, _ = finding(bench, summaries, folder)
    beneath = [("finding", text) for text in (line, basis) if text]
    beneath += [("remark", remark) for remark in remarks(rows, primary)]
    beneath += [("note", f"note: {note}") for note in bench.get("notes") or []]
    return grid(bench, summaries), beneath


def _plain(text: object) -> str:
    """Text that Markdown takes literally."""
    return re.sub(r"([\\`*\[|])", r"\\\1", escape(" ".join(str(text).split()), quote=False))


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>|"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\N{PLUS-MINUS SIGN}": "$\\pm$",
}


def _latex(text: object) -> str:
    """Text that LaTeX takes literally, a leading minus as one."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(str(text).split()))
    return re.sub(r"^-(?=\d)", "$-$", escaped)
