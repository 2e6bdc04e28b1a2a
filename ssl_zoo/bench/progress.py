"""What a person sees while a bench runs: the plan, a bar per cell, one line per finished cell, the table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import rich.progress as bars
from rich.console import Console
from rich.markup import escape

from ssl_zoo.bench.cells import Cell, Emit
from ssl_zoo.bench.plan import Plan
from ssl_zoo.bench.report.table import render_table

if TYPE_CHECKING:
    from ssl_zoo.bench.results import Results

_OF_EVERY_METHOD = {
    "event",
    "step",
    "images_seen",
    "loss",
    "lr",
    "seconds",
    "images_per_second",
    "momentum",
    "horizon",
}
_LAST = ("finished", "stopped", "lost")  # events after which the process of a cell is gone


def _own_metrics(event: dict[str, Any]) -> list[str]:
    """The two metrics that the method itself names first."""
    return [name for name in event if name not in _OF_EVERY_METHOD][:2]


class Progress:
    """Progress on the terminal; with `quiet` only errors and the table."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console()
        self.quiet = quiet
        self.bars = bars.Progress(
            bars.TextColumn("{task.description:<18}"),
            bars.BarColumn(bar_width=28),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[words]}", style="dim"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def planned(self, plan: Plan, folder: Path, cost: dict[str, float]) -> None:
        """Say what will run, for how long and into which folder."""
        shared, say = plan.shared, self._say
        labels = ", ".join(dict.fromkeys(cell.label for cell in plan.cells))
        seeds = len({cell.seed for cell in plan.cells})
        say(
            f"[bold]{escape(shared.dataset)}[/]  {shared.images:,} images at {shared.image_size} px, "
            f"{shared.backbone.name}" + (f" from {escape(shared.init)}" if shared.init else "")
        )
        say(f"{len(plan.cells)} cells: {labels}; {seeds} seed{'s' if seeds > 1 else ''}")
        steps = {cell.label: f"{cell.steps:,}" for cell in plan.cells if cell.steps}
        if len(set(steps.values())) == 1:
            whose = f"each method: {next(iter(steps.values()))} steps"
        else:
            whose = f"steps: {', '.join(f'{label} {count}' for label, count in steps.items())};"
        say(
            f"{whose} of {shared.batch_size} images, "
            f"{shared.precision}, {plan.cells[0].threads} threads on {plan.cells[0].device}"
        )
        eager = " (measured without run.compile)" if plan.cells[0].compile else ""
        need = f"{cost['minutes']:.1f} minutes of training{eager}, {cost['bytes'] / 1e6:.0f} MB"
        say(f"about {need}, in {escape(str(folder))}")
        if cost["minutes"] > cost["long_minutes"]:
            (unit, amount), *_ = shared.budget.items()
            fitting = amount * cost["fitting"]
            whole = unit in ("images", "steps")
            say(f"to be done in 10 minutes: --budget {unit}={int(fitting) if whole else f'{fitting:.3g}'}")
        for note in plan.notes:
            say(f"[yellow]note[/] {escape(note)}")

    def follow(self, cell: Cell) -> Emit:
        """A receiver of the cell's events, shown as a bar while its process runs."""
        name = cell.folder
        task: bars.TaskID | None = None

        def emit(event: dict[str, Any]) -> None:
            nonlocal task
            if event["event"] in _LAST:
                if task is not None:
                    self.bars.remove_task(task)
                task = None
                return
            if task is None:
                task = self.bars.add_task(name, total=None, words="starting")
            match event["event"]:
                case "training":
                    self.bars.update(task, total=event["total"] or None, words="")
                case "log":
                    live = {name: event[name] for name in ("loss", *_own_metrics(event))}
                    shown = "  ".join(f"{name} {value:.3g}" for name, value in live.items())
                    speed = f"{event['images_per_second']:,.0f} images/s"
                    self.bars.update(task, completed=event["step"], words=f"{speed}  {shown}")
                case "collapse":
                    self._say(f"[yellow]{name:<18} step {event['step']}: {event['words']}[/]")
                case "evaluating":
                    self.bars.update(task, words="evaluating")

        return emit

    def kept(self, cell: Cell) -> None:
        self._say(f"[dim]{cell.folder:<18} finished before, kept[/]")

    def restarting(self, cell: Cell, error: str) -> None:
        self.console.print(
            f"[yellow]{cell.folder:<18} starts again[/] after {escape(error)}", highlight=False
        )

    def finished(self, cell: Cell, status: str, result: dict[str, Any]) -> None:
        if status == "failed":
            self.console.print(
                f"[red]{cell.folder:<18} {status}[/] {escape(result['error'])}", highlight=False
            )
            return
        rate = f", lr {result['lr']:g}" if result["lr"] else ""
        early = f"[red]collapsed[/] at step {result['steps']}, " if status == "collapsed" else ""
        self._say(
            f"{cell.folder:<18} {early}{_scored(result)}  {result['train_seconds']:.0f} s training{rate}"
        )

    def evaluated(self, name: str, scores: dict[str, Any]) -> None:
        """One line for an encoder that was trained before."""
        self._say(f"{name:<18} {_scored(scores)}")

    def show(self, results: "Results") -> None:
        """The table, and where everything lies."""
        for words in results.broken:
            self.console.print(f"[red]unequal:[/] {escape(words)}", highlight=False)
        self.console.print(render_table(results.as_dict(), results.folder))
        self.console.print(escape(f"{results.folder / 'report.html'}"), style="bold", highlight=False)

    def _say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False)


def _scored(scores: dict[str, Any]) -> str:
    trial = "knn_top1" not in scores
    score = scores["final_metrics"].get("curve_knn_top1") if trial else scores["knn_top1"]
    return f"{'selection ' if trial else ''}k-NN {score:.1%}" if score is not None else "no labels"
