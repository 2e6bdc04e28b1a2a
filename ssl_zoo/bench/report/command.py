"""What `ssl-zoo report` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ssl_zoo.bench.progress import Progress
from ssl_zoo.bench.report.merge import check_target, merge
from ssl_zoo.bench.report.table import to_csv_table, to_latex, to_markdown
from ssl_zoo.bench.results import Results
from ssl_zoo.files import write_text

Format = Literal["html", "md", "csv", "latex"]


def report_runs(runs: Sequence[Path], kind: Format, out: Path | None, progress: Progress) -> str | None:
    """Rebuild the report of one bench folder, or make one of several; returns a table that is to be printed.

    `html` writes results.json, results.csv and report.html, into the folder itself or, for several, into
    the new folder `out`. The other formats are the table alone, written into the file `out` if there is one.
    Raises ValueError for several folders without `out`, and as `merge`.
    """
    if not runs:
        raise ValueError("give the folder of a bench, or several")
    if kind == "html":
        if out is None and len(runs) > 1:
            raise ValueError("several runs are merged into a new folder: give --out FOLDER")
        if out is not None:
            check_target(out, runs)
        results = Results.load(runs[0]) if out is None else merge(runs, out)
        results.folder.mkdir(parents=True, exist_ok=True)
        results.save()
        progress.show(results)
        return None
    results = Results.load(runs[0]) if len(runs) == 1 else merge(runs, Path())
    if kind == "csv":
        table = to_csv_table(results.as_dict())
    else:
        table = (to_markdown if kind == "md" else to_latex)(results.as_dict(), results.folder)
    if out is None:
        return table
    write_text(out, table)
    return None
