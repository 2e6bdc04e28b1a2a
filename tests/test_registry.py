"""The registry: names and owners, lazy imports, entry points of other packages, telling errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_plugins import install

from ssl_zoo import registry
from ssl_zoo.backbones import create_backbone
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.methods.dino import DINO
from ssl_zoo.nets import TokenBackbone
from ssl_zoo.registry import (
    check_methods,
    create_method,
    describe_methods,
    list_methods,
    method_class,
    register_method,
)

PLUGIN = '''
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.registry import register_method


@register_method("fine")
class Fine(BYOL):
    """Not the metadata's summary."""
'''


# Names


def test_in_tree_methods_are_listed_and_described() -> None:
    assert {"byol", "dino", "moco"} <= set(list_methods())
    described = {row.name: row for row in describe_methods()}
    assert described["dino"].owner == "ssl_zoo.methods.dino"
    assert described["dino"].summary.startswith("DINO: a student matches")


def test_name_of_another_class_is_refused_with_its_owner() -> None:
    with pytest.raises(ValueError, match=r"'dino' belongs to ssl_zoo.methods.dino.*another name"):
        register_method("dino")(type("Mine", (BYOL,), {}))
    register_method("mine")(type("Mine", (BYOL,), {}))
    with pytest.raises(
        ValueError, match=r"'mine' belongs to .*\.Mine; register .*\.Yours under another name"
    ):
        register_method("mine")(type("Yours", (BYOL,), {}))
    assert method_class("dino") is DINO


def test_registering_again_is_no_conflict() -> None:
    assert register_method("dino")(DINO) is DINO


def test_registered_class_knows_its_name_and_is_described_by_its_docstring() -> None:
    mine = register_method("mine")(type("Mine", (BYOL,), {"__doc__": "First line.\nSecond."}))
    assert mine.name == "mine"
    assert ("mine", "First line.") in {row[:2] for row in describe_methods()}
    assert "mine" in list_methods()


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'dinoo'; did you mean 'dino'\? Allowed: .*byol"):
        method_class("dinoo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_dims": 64}, r"unknown option 'dino.out_dims'; did you mean 'dino.out_dim'\?"),
        ({"optim": {"lrr": 1}}, r"unknown option 'dino.optim.lrr'; did you mean 'dino.optim.lr'\?"),
        ({"out_dim": 0}, r"dino.out_dim: .*greater than or equal to 2 \(given: 0\)"),
        ({"optim": {"betas": (0.9, 1.5)}}, r"dino.optim.betas.1: .*less than 1 \(given: 1.5\)"),
        ({"out_dim": 0, "headss": 1}, r"dino.out_dim: .*\n.*dino.headss"),
    ],
)
def test_wrong_option_says_which_and_what_instead(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_method("dino", create_backbone("resnet8", width=4), **options)


def test_options_reach_the_config() -> None:
    method = create_method("dino", create_backbone("resnet8", width=4), out_dim=64, optim={"lr": 0.5})
    assert method.loss.center.shape == (1, 64)
    assert method.config.optim.lr == 0.5


def test_backbone_without_tokens_is_refused() -> None:
    cls = type("Masked", (BYOL,), {"backbone_type": TokenBackbone})
    register_method("masked")(cls)
    with pytest.raises(TypeError, match=r"masked needs a TokenBackbone, got ResNet8; .*such as vit_tiny"):
        create_method("masked", create_backbone("resnet8", width=4))


def test_looking_one_method_up_imports_no_other() -> None:
    script = """
import sys
from ssl_zoo.registry import describe_methods, list_methods, method_class
def imported():
    return {name.split(".")[2] for name in sys.modules if name.startswith("ssl_zoo.methods.")}
assert {"byol", "dino", "moco"} <= set(list_methods())
assert {"byol", "dino", "moco"} <= {row.name for row in describe_methods()}
assert imported() == set(), imported()
method_class("dino")
assert imported() == {"dino"}, imported()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Entry points


def test_installed_method_is_listed_before_and_created_after_its_import(site: Path) -> None:
    install(site, "plug", {"fine": "plug_fine:Fine"}, {"plug_fine.py": PLUGIN})
    assert "fine" in list_methods()
    assert registry.Listing("fine", "Of plug.", "plug_fine:Fine") in describe_methods()
    assert "plug_fine" not in sys.modules
    method = create_method("fine", create_backbone("resnet8", width=4), out_dim=8)
    assert type(method) is sys.modules["plug_fine"].Fine
    assert method.name == "fine"


@pytest.mark.parametrize("target", ["plug:Fine", "plug.deep:Fine"])
def test_installed_method_may_be_pointed_at_where_it_is_exported(site: Path, target: str) -> None:
    export = "from plug.deep import Fine"
    install(site, "plug", {"fine": target}, {"plug/__init__.py": export, "plug/deep.py": PLUGIN})
    assert method_class("fine").__module__ == "plug.deep"


def test_broken_plugins_are_reported_and_hide_nothing(site: Path) -> None:
    install(
        site,
        "plug",
        {
            "fine": "plug_fine:Fine",
            "gone": "plug_gone:X",
            "raises": "plug_raises:X",
            "number": "plug_number:X",
        },
        {
            "plug_fine.py": PLUGIN,
            "plug_raises.py": "raise RuntimeError('half installed')",
            "plug_number.py": "X = 3",
        },
    )
    report = check_methods()
    assert report["gone"] == "ModuleNotFoundError: No module named 'plug_gone'"
    assert report["raises"] == "RuntimeError: half installed"
    assert (
        report["number"]
        == "TypeError: entry point number = plug_number:X is no Method class; point it at one"
    )
    assert [report[name] for name in ("byol", "dino", "fine", "moco")] == [""] * 4


@pytest.mark.parametrize("name", ["fine", "byol"])
def test_name_that_two_packages_claim_is_refused_with_both(site: Path, name: str) -> None:
    install(site, "plug", {name: "plug_fine:Fine"}, {"plug_fine.py": PLUGIN})
    if name == "fine":
        install(site, "plug2", {name: "plug_other:Fine"}, {"plug_other.py": PLUGIN})
    other = "plug_other:Fine" if name == "fine" else "ssl_zoo.methods.byol"
    with pytest.raises(ValueError, match=rf"'{name}' comes from .* and .*; uninstall all but one") as error:
        method_class(name)
    assert other in str(error.value)
    assert "plug_fine:Fine" in str(error.value)
    assert check_methods()["dino"] == ""


def test_name_of_an_installed_method_is_refused_with_its_owner(site: Path) -> None:
    install(site, "plug", {"fine": "plug_fine:Fine"}, {"plug_fine.py": PLUGIN})
    with pytest.raises(ValueError, match="'fine' belongs to plug_fine:Fine; register"):
        register_method("fine")(type("Mine", (BYOL,), {}))
