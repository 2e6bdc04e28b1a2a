"""The command line: parses, calls, prints; decides nothing."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, Token

from ssl_zoo import cli_use
from ssl_zoo.spare import spare

app = App(
    name="ssl-zoo",
    help="""Find out which self-supervised vision method is better on your images, and trust the answer.

    Start here, no data needed, a few minutes on a laptop:

        ssl-zoo bench --methods dino byol --dataset digits --out runs/first
    """,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main() tells what is kept
)

_WRONG_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    return int(tokens[0].value)  # cyclopts itself makes 1 of 1.5


Whole = Parameter(converter=_whole)
Several = Parameter(consume_multiple=True, negative="")


@app.command
def bench(
    *,
    methods: Annotated[list[str] | None, Several] = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
    labels: str | None = None,
    eval_data: str | None = None,
    backbone: str | None = None,
    init: str | None = None,
    image_size: Annotated[int | None, Whole] = None,
    batch_size: Annotated[int | None, Whole] = None,
    budget: str | None = None,
    seeds: Annotated[int | None, Whole] = None,
    device: str | None = None,
    precision: Literal["auto", "bf16", "fp32"] | None = None,
    executor: Literal["local", "inline", "ray", "slurm"] | None = None,
    out: Path | None = None,
    config: Path | None = None,
    set: Annotated[list[str] | None, Several] = None,
    plugin: Annotated[list[str] | None, Several] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train and evaluate methods under one budget; print a table and write report.html.

    The same command on the same --out goes on where it stopped. More seeds or methods on the same folder are
    added to what is there. Exit code 1 says that a cell failed, 2 that the command or configuration is wrong.

    Examples:

        ssl-zoo bench --methods dino byol --dataset digits --out runs/first
        ssl-zoo bench --methods dino byol moco --dataset cifar10 --data-dir DATA --budget epochs=3
        ssl-zoo bench --config bench.yaml --set dino.out_dim=4096 --seeds 3

    Parameters
    ----------
    methods
        What to compare: names from `ssl-zoo list methods`.
    dataset
        The images: a name from `ssl-zoo list datasets`, or your own as folder:PATH, parquet:PATH, hf:NAME.
    data_dir
        Folder that holds `<dataset>/`; default SSL_ZOO_DATA, else a download is tried.
    labels
        A CSV file `path,label[,group][,split]` for your own images; the other images are trained on without
        labels. `none` ignores class folders.
    eval_data
        Other images, with labels, to evaluate on instead of the data set's own train and test.
    backbone
        A name from `ssl-zoo list backbones`, or timm:NAME; default resnet8 up to 64 px, else resnet18.
    init
        Weights that every method starts from: timm:NAME, or a .safetensors, .pt or .pth file.
    image_size
        Side of the global crops in pixels; default the images' own up to 64, else 96.
    batch_size
        Images per optimizer step, the same for all methods; default 256, at most a quarter of the images.
    budget
        epochs=N, images=N, steps=N, flops=N or seconds=N, the same for all methods; default epochs=20.
    seeds
        How many seeds: 3 means 0, 1 and 2. Fewer than 3 cannot rank methods.
    device
        auto, cpu, cuda or cuda:N.
    precision
        auto is bf16 where the hardware has it.
    executor
        local: a process for each cell; inline: all in this one, for debugging; ray, slurm: many at once, on a
        cluster.
    out
        The bench folder; default runs/<dataset>-<time>.
    config
        A YAML file with the same fields; flags win over it.
    set
        Any field as section.field=value, such as dino.out_dim=4096 or run.threads=2.
    plugin
        Modules or .py files that register further methods.
    overwrite
        Discard what is in --out.
    quiet
        Print errors and the table only.
    dry_run
        Print the plan and stop.
    """
    given: dict[str, Any] = {
        "methods": methods,
        "dataset": dataset,
        "backbone": backbone,
        "init": init,
        "image_size": image_size,
        "batch_size": batch_size,
        "budget": _budget(budget),
        "seeds": seeds,
        "plugins": plugin,
        "data": _given(dir=data_dir and str(data_dir), labels=labels, eval=eval_data),
        "run": _given(device=device, precision=precision, executor=executor),
    }
    with spare(executor in (None, "local") and not dry_run):  # it imports torch while this process does
        from ssl_zoo.bench import run_bench
        from ssl_zoo.bench.config import load
        from ssl_zoo.bench.progress import Progress

        loaded, progress = load(config, _given(**given), set or ()), Progress(quiet=quiet)
        results = run_bench(loaded, out=out, overwrite=overwrite, dry_run=dry_run, progress=progress)
    return 1 if results.failed else 0


@app.command(name="list")
def list_(
    what: Literal["methods", "datasets", "backbones"] = "methods",
    /,
    *,
    check: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List what there is to choose from.

    Parameters
    ----------
    what
        methods, datasets or backbones.
    check
        Import each method and show what is broken; exit code 1 if one is.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if what == "methods":
        from ssl_zoo.registry import check_methods, describe_methods

        broken = check_methods() if check else {}
        for listing in describe_methods():
            console.print(f"[bold]{listing.name:<12}[/] {listing.summary}  [dim]{listing.owner}[/]")
            if broken.get(listing.name):
                console.print(f"{'':<12} [red]broken:[/] {broken[listing.name]}", markup=True)
        return 1 if any(broken.values()) else 0
    if what == "datasets":
        from ssl_zoo.data.datasets import list_datasets

        names = list_datasets()
    else:
        from ssl_zoo.backbones import list_backbones

        names = [*list_backbones(), "timm:NAME"]
    for name in names:
        console.print(name)
    return 0


@app.command
def report(
    *runs: Path,
    format: Literal["html", "md", "csv", "latex"] = "html",
    out: Path | None = None,
) -> int:
    """Write the report of a bench folder anew, or merge several into one, and print the table.

    Benches are merged where they are comparable: equal data, backbone, image size, batch size, budget, views
    and precision; otherwise the error lists the differences. Nothing is trained or copied.

    Examples:

        ssl-zoo report runs/first
        ssl-zoo report runs/first runs/second --out runs/both
        ssl-zoo report runs/first --format latex --out table.tex

    Parameters
    ----------
    runs
        Folders made by `ssl-zoo bench`.
    format
        html writes results.json, results.csv and report.html; md, csv and latex are the table alone.
    out
        html: a new folder, needed for several runs; otherwise the file for the table, which is else printed.
    """
    from ssl_zoo.bench.progress import Progress
    from ssl_zoo.bench.report.command import report_runs

    table = report_runs(runs, format, out, Progress())
    if table is not None:
        print(table, end="")
    return 0


@app.command
def run_cell(cell: Path, /, *, attached: Annotated[bool, Parameter(negative="", show=False)] = False) -> int:
    """Run one cell of a planned bench by itself, as a scheduler would; progress is JSON lines on stdout.

    Parameters
    ----------
    cell
        A `cell.json` that a bench has written.
    attached
        Stop after the current step when the parent process is gone.
    """
    from ssl_zoo.attached import left
    from ssl_zoo.bench.process import run_alone

    return run_alone(cell, gone=lambda: attached and left())


app.command(cli_use.evaluate, name="eval")
app.command(cli_use.embed)
app.command(cli_use.attention)
app.command(cli_use.reproduce)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit code 0 fine, 1 a cell or a file failed, 2 usage or configuration, 130 interrupted."""
    if arguments is None and "LOCAL_RANK" not in os.environ:  # torchrun ends ranks that may wait for others
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # asks for the same as Ctrl-C
    try:
        code = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except (CycloptsError, ValueError, ImportError) as error:
        print(f"ssl-zoo: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"ssl-zoo: {error}", file=sys.stderr)
        failed = isinstance(error, ChildProcessError)  # a cell on one of several ranks
        code = 1 if failed or error.errno not in (None, *_WRONG_PATH) else 2
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept; the same command goes on", file=sys.stderr)
        code = 130
    sys.exit(code)


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that the command line names; no flag is no field, 0 is one."""
    return {name: value for name, value in fields.items() if value not in (None, {})}


def _budget(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    unit, _, amount = text.partition("=")
    try:
        return {unit: int(float(amount)) if unit in ("images", "steps") else float(amount)}
    except (ValueError, OverflowError):
        raise ValueError(
            f"--budget {text!r}: write epochs=20, images=1000000, steps=5000, flops=5e15 or seconds=600"
        ) from None


if __name__ == "__main__":
    main()
