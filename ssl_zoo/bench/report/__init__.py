"""The report of a bench: a terminal table, the same table for other readers, and one offline page."""

from ssl_zoo.bench.report.comparison import Comparison, Finding, compare, finding
from ssl_zoo.bench.report.html import results_table, write_report
from ssl_zoo.bench.report.summaries import Summary, summary
from ssl_zoo.bench.report.table import render_table, to_csv_table, to_latex, to_markdown

__all__ = [
    "Comparison",
    "Finding",
    "Summary",
    "compare",
    "finding",
    "render_table",
    "results_table",
    "summary",
    "to_csv_table",
    "to_latex",
    "to_markdown",
    "write_report",
]
