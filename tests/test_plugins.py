"""Methods of other people: an installed package, a single file, and what is said when one is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_command import SMALL, run_here, ssl_zoo_command
from made_plugins import install

from ssl_zoo.bench.plugins import import_plugin
from ssl_zoo.bench.results import Results
from ssl_zoo.registry import method_class
from ssl_zoo.testing import check_method

QUICK = [*SMALL, "--dataset", "digits", "--batch-size", "16", "--budget", "steps=5"]


@pytest.fixture(scope="module")
def simsiam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed examples/plugin, copied first because setuptools builds in place."""
    source = shutil.copytree("examples/plugin", tmp_path_factory.mktemp("source") / "plugin")
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", site, source], check=True)
    return site


def test_example_is_one_short_file() -> None:
    (module,) = Path("examples/plugin").glob("*.py")
    assert len(module.read_text().splitlines()) <= 60


def test_installed_example_is_listed_and_keeps_the_contract(
    simsiam: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(simsiam))
    assert run_here("list", "methods", "--check") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("simsiam")]
    assert "SimSiam: a predictor matches the other view" in line
    assert line.endswith("ssl_zoo_simsiam:SimSiam")
    assert len(check_method(method_class("simsiam"), hidden_dim=16, out_dim=32)) >= 8


def test_installed_example_is_a_row_of_the_table(
    simsiam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(simsiam))  # for the bench and the processes of its cells
    done = ssl_zoo_command("bench", "--methods", "simsiam", "byol", *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["label"]: row for row in Results.load(tmp_path / "run").rows}
    assert {label: row["status"] for label, row in rows.items()} == dict.fromkeys(
        ("random", "simsiam", "byol"), "done"
    )
    assert rows["simsiam"]["images_seen"] == rows["byol"]["images_seen"] == 5 * 16
    assert rows["simsiam"]["encoder"] == "online"
    assert "simsiam" in done.stdout


def test_a_single_file_is_a_row_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = ["--plugin", "examples/simclr.py", "--executor", "inline"]
    assert run_here("bench", "--methods", "simclr", *plugin, *QUICK, "--out", tmp_path / "run") == 0
    rows = {row["label"]: row for row in Results.load(tmp_path / "run").rows}
    assert (rows["simclr"]["method"], rows["simclr"]["status"]) == ("simclr", "done")
    assert "simclr" in capsys.readouterr().out


def test_a_broken_package_is_listed_hides_nothing_and_is_shown_by_check(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "plug", {"cracked": "plug_cracked:X"}, {"plug_cracked.py": "import no_such_part"})
    assert run_here("list", "methods") == 0
    assert {"cracked", "byol"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert run_here("list", "methods", "--check") == 1
    checked = capsys.readouterr().out
    assert "broken: ModuleNotFoundError: No module named 'no_such_part'" in checked
    assert checked.count("broken:") == 1


def test_asking_for_a_broken_package_gives_one_line_with_its_own_error(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "raise ImportError('needs a newer libfoo')"
    install(site, "plug", {"cracked": "plug_cracked:X"}, {"plug_cracked.py": source})
    asked = ("bench", "--methods", "cracked", "--dataset", "digits", "--out", site / "run")
    assert run_here(*asked) == 2
    assert capsys.readouterr().err == (
        "ssl-zoo: method 'cracked' of the installed package plug is broken: "
        "ImportError: needs a newer libfoo; repair it or `pip uninstall plug`\n"
    )
    assert not (site / "run").exists()
    with pytest.raises(ImportError) as error:
        method_class("cracked")
    assert str(error.value.__cause__) == "needs a newer libfoo"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("1 / 0", ImportError, r"plugin '.*mine\.py' is broken: ZeroDivisionError: division by zero"),
        ("def", ImportError, r"plugin '.*mine\.py' is broken: SyntaxError"),
        ("import no_such_part", ValueError, r"mine\.py': No module named 'no_such_part'; install it"),
    ],
)
def test_a_broken_file_says_so_each_time(
    tmp_path: Path, source: str, error: type[Exception], message: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    for _ in range(2):  # a failed import leaves nothing behind that would pass for the module
        with pytest.raises(error, match=message):
            import_plugin(str(file))


def test_a_file_named_like_a_loaded_module_is_refused(tmp_path: Path) -> None:
    for name in ("json.py", "sys.py"):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=rf"a module '{name[:-3]}' is loaded already.*rename yours"):
            import_plugin(str(tmp_path / name))
