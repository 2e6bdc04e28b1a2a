"""The package as a dependency: its names, what importing it leaves alone, what is installed."""

import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import ssl_zoo
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.method import Augment, ViewSpec

DESIGNED = {
    *("bench", "fit", "evaluate", "create_method", "list_methods", "register_method", "create_backbone"),
    *("list_backbones", "create_dataset", "list_datasets", "load_encoder", "MultiCropCollate", "ViewSpec"),
    *("Augment", "Views", "EMA", "Budget"),
}

IMPORT = """
import logging, multiprocessing, os, random, signal, sys, warnings
import numpy, torch

def torch_state():
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "random numbers": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "printing": str(vars(torch._tensor_str.PRINT_OPTS)),
        "numpy": (str(numpy.random.get_state()), numpy.geterr(), str(numpy.get_printoptions())),
        "logging": [(str(log.handlers), log.level) for log in map(logging.getLogger, (None, "ssl_zoo"))],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "start method": multiprocessing.get_start_method(allow_none=True),
        "hooks": (sys.excepthook, sys.getrecursionlimit()),
        "path": (list(sys.path), os.getcwd()),
    }

def whole_state():
    return torch_state() | {
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "python's random numbers": random.getstate(),
    }

def touch():
    import ssl_zoo
    for name in ssl_zoo.__all__:
        getattr(ssl_zoo, name)

def compare(before, after):
    changed = [what for what in before if before[what] != after[what]]
    assert not changed, f"importing ssl_zoo changes {changed}"

before = torch_state()
touch()
compare(before, torch_state())
assert "matplotlib" not in sys.modules

# again, without what its dependencies change when they are imported: filters, variables, a random number
for name in [name for name in sys.modules if name.partition(".")[0] == "ssl_zoo"]:
    del sys.modules[name]
before = whole_state()
touch()
compare(before, whole_state())
"""


def test_names_of_the_design_are_there_and_listed() -> None:
    assert set(dir(ssl_zoo)) >= DESIGNED
    for name in ssl_zoo.__all__:
        assert callable(getattr(ssl_zoo, name)), name
    assert set(ssl_zoo.__all__) == set(dir(ssl_zoo))
    with pytest.raises(AttributeError, match=r"no attribute 'benhc'; it has .*bench"):
        getattr(ssl_zoo, "benhc")  # noqa: B009


def test_star_import_gives_each_name() -> None:
    names: dict[str, object] = {}
    exec("from ssl_zoo import *", names)
    assert set(ssl_zoo.__all__) <= set(names)


def test_import_changes_no_state() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_wheel_has_types_and_templates_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools builds in place
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(name, source)
    for name in ("ssl_zoo", "tests", "docs", "examples"):
        shutil.copytree(name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path) for kind in ("*.py", "*.jinja", "py.typed") for path in Path("ssl_zoo").rglob(kind)}
    assert {name for name in packed if ".dist-info/" not in name} == wanted
    assert "ssl_zoo/py.typed" in wanted


def test_what_workers_need_survives_pickling() -> None:
    """Workers that are spawned receive the data and the collate as pickles."""
    split = ssl_zoo.create_dataset("digits").split("train")
    copied = pickle.loads(pickle.dumps(split))
    assert torch.equal(copied.images, split.images)
    assert torch.equal(copied.labels, split.labels)
    assert (copied.classes, copied.fingerprint) == (split.classes, split.fingerprint)
    collate = MultiCropCollate(ViewSpec(global_views=(Augment(16, scale=(0.3, 1.0)),) * 2), seed=3)
    index = torch.arange(4)
    views = [c.batch(split.images[:4], index, 0) for c in (collate, pickle.loads(pickle.dumps(collate)))]
    assert torch.equal(views[0].global_crops, views[1].global_crops)
