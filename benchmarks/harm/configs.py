"""Wrong configurations, made by hypothesis, and what the command line has to say of them."""

import contextlib
import io
import string
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

from ssl_zoo.bench.config import BenchConfig, DataConfig, EvaluationConfig, TuningConfig
from ssl_zoo.bench.run_config import RunConfig
from ssl_zoo.budget import Budget
from ssl_zoo.cli import main
from ssl_zoo.registry import list_methods

LONGEST = 3000  # characters of a message

BASE: dict[str, Any] = {
    "methods": ["byol"],
    "dataset": "digits",
    "backbone": {"name": "resnet8", "width": 8},
    "budget": {"steps": 2},
}
SECTIONS = {
    "data": [*DataConfig.model_fields],
    "evaluation": [*EvaluationConfig.model_fields],
    "run": [*RunConfig.model_fields],
    "tuning": [*TuningConfig.model_fields],
    "budget": [*Budget.model_fields],
    "report": ["images"],
}
KNOWN = {*BenchConfig.model_fields, *SECTIONS, *chain(*SECTIONS.values()), *list_methods()}

_COUNT = [0, -1, 1.5, "many", None, [], {}, float("nan"), float("inf")]
_TEXT = [3, 1.5, True, [], {"a": 1}]
_CHOICE = ["never", 3, True, None, [], {}]
WRONG: dict[str, list[Any]] = {  # values that no field of this path takes
    "methods": [None, 3, "byol", [], [3], [[]], [None], [{}], [{"label": "x"}], [{"method": 3}]],
    "methods.0": [{"method": "byol", "label": label} for label in ("../up", "", ".", "a/b", "x" * 999, 7)],
    "dataset": [3, None, "", [], {}, True],
    "backbone": [3, [], True, {"width": 8}, {"name": 3}, {"name": "resnet8", "options": 3}],
    "init": _TEXT,
    "frozen": [3, "a", {"a": 1}, [3], [None], [[]]],
    "image_size": [0, -8, 7, 1.5, 10**9, "large", [], {}],
    "batch_size": [0, 1, -4, 2.5, "all", [], {}],
    "budget": [None, 3, [], "epochs", {}, {"epochs": 1, "steps": 1}],
    "budget.epochs": [0, -1, "x", [], float("nan"), float("inf"), -float("inf")],
    "budget.images": [0, -1, 1.5, "x", []],
    "budget.steps": [0, -1, 1.5, "x", []],
    "budget.flops": [0, -1, 10, "x", [], float("nan"), float("inf")],
    "budget.seconds": [0, -1, 1e-9, "x", [], float("nan"), float("inf")],
    "references": [3, "pixels", None, [3], ["random"], ["pixels", "pixels"], {}],
    "tuning": [3, [], "yes", None],
    "tuning.trials": [-1, 1.5, "many", None, [], 10**6],
    "seeds": [None, 0, -1, 1.5, True, "x", [], {}, ["x"], [-1], [2**63], [0, 0], 10**12, 2000],
    "views": _CHOICE,
    "data": [3, [], "here"],
    "data.dir": _TEXT,
    "data.labels": _TEXT,
    "data.eval": _TEXT,
    "data.on_bad_image": _CHOICE,
    "data.window": ["all", 3, None, [], [1], [1, 2, 3], ["a", "b"], [float("nan"), 1]],
    "data.transductive": [3, "perhaps", None, []],
    "evaluation": [3, [], "none"],
    "evaluation.knn_k": [3, [], [0], [-1], ["x"], [1.5], None],
    "evaluation.knn_temperature": [0, -1, "hot", None, [], float("nan"), float("inf")],
    "evaluation.primary_metric": _CHOICE,
    "evaluation.finetune": [3, "perhaps", None, []],
    "evaluation.reference": [3, [], {}, "nobody", ""],
    "evaluation.curve": [-1, 1.5, "many", None, [], 1000],
    "evaluation.transfer": [3, "digits", None, [3], {}, ["nowhere"]],
    "run": [3, [], "fast", None],
    "run.device": [3, None, [], "gpu", "cuda:99", "cpu:1", "meta"],
    "run.precision": _CHOICE,
    "run.executor": _CHOICE,
    "run.ray_address": _TEXT,
    "run.slurm": [3, [], "fast", None, {"queue": "gpu"}],
    "run.slurm.cluster": _CHOICE,
    "run.slurm.partition": _TEXT,
    "run.slurm.minutes": _COUNT,
    "run.slurm.parameters": [3, [], "x", None, {"account": []}],
    "run.threads": [0, -1, 1.5, "many", 10**9, [], {}],
    "run.workers": [-1, 1.5, "many", 10**9, [], {}],
    **dict.fromkeys(("run.num_devices", "run.num_nodes", "run.accumulate"), _COUNT),
    "run.compile": [3, "perhaps", None, []],
    "run.on_collapse": _CHOICE,
    "run.max_restarts": [-1, 1.5, "x", []],
    "run.checkpoint_seconds": [-1, "x", None, [], float("nan"), float("inf")],
    "run.log_every": _COUNT,
    "report": [3, [], None],
    "report.images": _CHOICE,
    "byol": [3, "x", [], [1]],
    "byol.optim": [3, "x", [], None],
    "byol.optim.lr": [-1, "x", None, [], float("nan"), float("inf")],
    "byol.optim.name": ["adam", 3, None],
    "byol.hidden_dim": [0, -1, 1.5, "x", None, []],
    "byol.views": [3, "x", [], {}, {"global_views": []}, {"global_views": [{"size": 16}]}],
    "byol.views.global_views": [[{"size": size, "scale": [0.5, 1]}] * 2 for size in (0, -1, 1.5, "x", 10**6)],
}


class Bad(NamedTuple):
    """A command that must be refused: the text of its `--config`, flags, words that the error must say."""

    config: bytes | None
    flags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def as_yaml(fields: dict[str, Any]) -> bytes:
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).encode()


def with_value(path: str, value: Any) -> dict[str, Any]:
    """BASE with one field replaced."""
    fields: dict[str, Any] = {
        key: item.copy() if isinstance(item, list | dict) else item for key, item in BASE.items()
    }
    *above, last = path.split(".")
    place: Any = fields
    for part in above:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    elif path.startswith("budget."):
        fields["budget"] = {last: value}
    else:
        place[last] = value
    return fields


NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12).filter(lambda name: name not in KNOWN)
TEXTS = st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))


@st.composite
def wrong_values(draw: st.DrawFn) -> Bad:
    path = draw(st.sampled_from(sorted(WRONG)))
    fields = with_value(path, draw(st.sampled_from(WRONG[path])))
    where = path.removesuffix(".0")
    return Bad(as_yaml(fields), words=(where.rpartition(".")[2],))


@st.composite
def unknown_keys(draw: st.DrawFn) -> Bad:
    section, name = draw(st.sampled_from(["", *SECTIONS, "byol", "byol.optim"])), draw(NAMES)
    path = f"{section}.{name}".removeprefix(".")
    value = draw(st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just({"a": 1})))
    if section == "budget":
        return Bad(as_yaml({**BASE, "budget": {"steps": 2, name: value}}), words=(path, "Allowed"))
    return Bad(as_yaml(with_value(path, value)), words=(path, "Allowed"))


@st.composite
def repeated_keys(draw: st.DrawFn) -> Bad:
    lines = as_yaml({**BASE, "run": {"threads": 1, "log_every": 2}}).decode().splitlines()
    kept = [line for line in lines if ":" in line]
    line = draw(st.sampled_from(kept))
    inside = line.startswith(" ")
    place = lines.index(line) + 1 if inside else len(lines)
    again = [*lines[:place], line if inside else f"{line.partition(':')[0]}: 3", *lines[place:]]
    return Bad("\n".join(again).encode(), words=(line.partition(":")[0].strip(), f"line {place + 1}"))


@st.composite
def bombs(draw: st.DrawFn) -> Bad:
    width, levels = draw(st.integers(5, 12)), draw(st.integers(6, 20))
    kind = draw(st.sampled_from(["list", "merge", "self", "deep"]))
    if kind == "list":
        rows = [f"a0: &a0 [{', '.join('x' * width)}]"]
        rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
        return Bad("\n".join(rows).encode(), words=("values",))
    if kind == "merge":
        rows = ["a0: &a0 {x: 1}"]
        rows += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * width)}]}}" for n in range(1, levels)]
        return Bad("\n".join(rows).encode(), words=("values",))
    if kind == "self":
        return Bad(
            draw(st.sampled_from([b"run: &a {b: *a}", b"seeds: &a [*a]", b"&a {x: {y: *a}}"])),
            words=("itself",),
        )
    depth, (start, end) = draw(st.integers(40, 400)), draw(st.sampled_from([(b"[", b"]"), (b"{a: ", b"}")]))
    return Bad(b"dataset: " + start * depth + b"x" + end * depth, words=("deep",))


@st.composite
def no_yaml(draw: st.DrawFn) -> Bad:
    """Bytes that are no configuration: none of these holds both methods and dataset."""
    kind = draw(st.sampled_from(["binary", "text", "tag", "cut", "huge"]))
    if kind == "binary":
        return Bad(draw(st.binary(max_size=200)))
    if kind == "text":
        return Bad(draw(TEXTS))
    if kind == "tag":
        tag = draw(
            st.sampled_from(
                ["python/object/apply:os.system", "bool", "int", "timestamp", "binary", "set", "x"]
            )
        )
        return Bad(as_yaml(BASE) + f"image_size: !!{tag} {draw(NAMES)}".encode())
    if kind == "cut":
        whole = as_yaml({**BASE, "run": {"threads": 1}})
        return Bad(whole[: draw(st.integers(0, whole.index(b"dataset") + 3))])
    return Bad(b"# long\n" * 200_000, words=("bytes",))


@st.composite
def bad_flags(draw: st.DrawFn) -> Bad:
    kind = draw(st.sampled_from(["set", "field", "budget", "number", "flag"]))
    if kind == "set":
        text = draw(st.text(max_size=20).filter(lambda t: "\0" not in t)).lstrip("-")
        flags: tuple[str, ...] = ("--set", text if "=" not in text else text.replace("=", "-"))
        return Bad(as_yaml(BASE), flags)
    if kind == "field":
        path = draw(
            st.sampled_from([path for path in sorted(WRONG) if "0" not in path and path != "methods"])
        )
        value = yaml.safe_dump(draw(st.sampled_from(WRONG[path])), default_flow_style=True, width=10**6)
        if path.startswith("budget."):
            flags = ("--set", f"budget={{{path[7:]}: {value.partition(chr(10))[0]}}}")
        else:
            flags = ("--set", f"{path}={value.partition(chr(10))[0]}")
        return Bad(as_yaml(BASE), flags)
    if kind == "budget":
        text = draw(
            st.sampled_from(
                ["", "=", "epochs", "epochs=", "epochs=x", "epochs=inf", "steps=nan", "steps=-1", "hours=3"]
            )
        )
        return Bad(None, ("--methods", "byol", "--dataset", "digits", f"--budget={text}"))
    if kind == "number":
        flag = draw(st.sampled_from(["--seeds", "--image-size", "--batch-size"]))
        return Bad(as_yaml(BASE), (f"{flag}={draw(st.sampled_from(['0', '-1', 'x', '1.5', '']))}",))
    return Bad(as_yaml(BASE), (f"--{draw(NAMES).replace('_', '-')}x", "1"))


bad_commands = st.one_of(wrong_values(), unknown_keys(), repeated_keys(), bombs(), no_yaml(), bad_flags())


def refusal(bad: Bad, folder: Path) -> str:
    """Run the command in this process; returns its message. Raises AssertionError unless it is refused well.

    That is: exit code 2, every line short, no traceback, nothing written, and the words that help.
    """
    file, out, err = folder / "bench.yaml", folder / "run", io.StringIO()
    flags = [*bad.flags, "--out", str(out), "--dry-run", "--quiet"]
    if bad.config is not None:
        file.write_bytes(bad.config)
        flags += ["--config", str(file)]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["bench", *flags])
        except SystemExit as left:
            code = left.code
    message = err.getvalue()
    assert code == 2, f"exit code {code}: {message}"
    assert message.startswith("ssl-zoo: "), message
    assert "Traceback" not in message, message
    assert len(message) < LONGEST, message
    assert not out.exists(), "a refused bench has written"
    for word in bad.words:
        assert word in message, f"{word!r} is not in: {message}"
    return message
