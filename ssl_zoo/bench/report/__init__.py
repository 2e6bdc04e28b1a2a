"""The report of a bench: a terminal table, the same table as Markdown, and one offline page."""

from ssl_zoo.bench.report.html import results_table, write_report
from ssl_zoo.bench.report.summaries import Summary, summary
from ssl_zoo.bench.report.table import render_table, to_markdown

__all__ = ["Summary", "render_table", "results_table", "summary", "to_markdown", "write_report"]
