"""Generated wrong configurations: each is refused with exit code 2 and a message that helps."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.harm.configs import BASE, SECTIONS, WRONG, Bad, as_yaml, bad_commands, refusal, with_value
from ssl_zoo.bench.config import load
from ssl_zoo.bench.yaml_text import MOST_BYTES, parse


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
)
@given(bad_commands)
def test_wrong_commands_are_refused(tmp_path: Path, bad: Bad) -> None:
    refusal(bad, tmp_path)


@pytest.mark.parametrize("path", WRONG)
def test_every_wrong_value_is_refused_with_its_field(tmp_path: Path, path: str) -> None:
    for value in WRONG[path]:
        field = path.removesuffix(".0").rpartition(".")[2]
        assert field in refusal(Bad(as_yaml(with_value(path, value)), words=(field,)), tmp_path)


def test_every_section_has_wrong_values_for_every_field() -> None:
    tried = {path.partition(".")[2] for path in WRONG}
    assert {name for names in SECTIONS.values() for name in names} <= tried
    load(fields=BASE)  # without them it is right


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"dataset: a\ndataset: b", ["line 2", "'dataset' is given before, in line 1; keep one"]),
        (b"run:\n  threads: 1\n  threads: 1", ["line 3", "'threads' is given before, in line 2"]),
        (b"run: {a: 1, 'a': 2}", ["'a' is given before"]),
        (b"\xff\xfe\x00", ["not UTF-8 text"]),
        (b"a: 1\n\x00", ["not valid YAML"]),
        (b"a: [1\nb: 2", ["not valid YAML: line 2"]),
        (b"- a", ["expected `field: value` lines, got list"]),
        (b"", ["expected `field: value` lines, got NoneType"]),
        (b"a: !!python/object/apply:os.system [ls]", ["line 1", "not allowed; write plain values"]),
        (b"a: &a [*a]", ["line 1", "contains itself"]),
        (
            b"methods: [byol]\ndataset: digits\nrun: {thread: 1}",
            ["'run.thread'; did you mean 'run.threads'?"],
        ),
        (b"methods: [{mthod: byol}]\ndataset: digits", ["methods.0.method: Field required"]),
        (
            b"methods: [byol]\ndataset: digits\nbyol: {views: {global_views: [{size: 8, scal: [1, 1]}]}}",
            ["did you mean 'byol.views.global_views.0.scale'?"],
        ),
        (b"methods: [byol]\ndataset: digits\ndata: {window: [1]}", ["data.window: Input should be 'dtype'"]),
    ],
)
def test_what_is_said(tmp_path: Path, config: bytes, words: list[str]) -> None:
    message = refusal(Bad(config), tmp_path)
    for word in words:
        assert word in message


def test_a_bomb_of_aliases_costs_no_memory() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]  # 9^30 values
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb.yaml, line 5: more than 10,000 values"):
        parse("\n".join(rows), "bomb.yaml")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert parse("a: &a {x: 1}\nb: {<<: *a, y: 2}", "") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


def test_no_more_of_a_file_is_read_than_a_configuration_may_have(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**40)  # sparse
    for file in (huge, Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"more than {MOST_BYTES:,} bytes"):
            load(file)
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_a_file_alone_runs_no_code(tmp_path: Path) -> None:
    plugin, config = tmp_path / "foreign.py", tmp_path / "bench.yaml"
    plugin.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    config.write_text(f"methods: [byol]\ndataset: digits\nplugins: [{plugin}]\n")
    with pytest.raises(
        ValueError, match=r"plugins: .*foreign.py', which is code; if you trust it, add --plugin"
    ):
        load(config)
    assert not (tmp_path / "ran").exists()
    assert load(config, {"plugins": [str(plugin)]}).plugins == [str(plugin)]
    assert (tmp_path / "ran").exists()
