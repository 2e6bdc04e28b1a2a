"""Configuration: every wrong input is one clear line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ssl_zoo.bench.config import dump, load
from ssl_zoo.budget import Budget
from ssl_zoo.cli import main
from ssl_zoo.registry import describe_methods, method_class

RECIPES = sorted(Path("benchmarks").glob("**/*.yaml"))


def test_yaml_fields_and_assignments_merge_in_this_order(tmp_path):
    file = tmp_path / "bench.yaml"
    file.write_text("methods: [dino]\ndataset: digits\nseeds: 3\ndino: {out_dim: 512}\nbackbone: resnet18\n")
    config = load(file, {"seeds": 2, "budget": {"steps": 5}}, ["dino.hidden_dim=64", "backbone.width=16"])
    assert config.seeds == [0, 1]
    assert config.budget == Budget(steps=5)
    assert config.methods[0].options == {"out_dim": 512, "hidden_dim": 64}
    assert config.backbone.options == {"width": 16}


def test_an_entry_differs_from_its_section_and_an_assignment_from_both():
    optim = {"lr": 0.1, "clip": 1.0}
    fields = {
        "dataset": "digits",
        "dino": {"out_dim": 512, "optim": optim},
        "methods": [{"method": "dino", "out_dim": 64, "optim": {"lr": 0.2}}, "byol"],
    }
    assert load(fields=fields).methods[0].options == {"out_dim": 64, "optim": {"lr": 0.2, "clip": 1.0}}
    changed = load(fields=fields, assignments=["dino.out_dim=128", "dino.optim.clip=2"]).methods
    assert changed[0].options == {"out_dim": 128, "optim": {"lr": 0.2, "clip": 2}}
    assert changed[1].options == {}
    assert fields["methods"][0]["optim"] == {"lr": 0.2}
    assert optim == {"lr": 0.1, "clip": 1.0}


def test_an_assignment_does_not_make_variants_equal():
    variants = [
        {"method": "dino", "label": label, "optim": {"lr": lr}} for label, lr in (("a", 0.1), ("b", 1))
    ]
    fields = {"dataset": "digits", "methods": variants, "dino": {"out_dim": 512}}
    with pytest.raises(
        ValueError, match=r"--set dino.optim.lr: variants of dino differ in it; change it in each"
    ):
        load(fields=fields, assignments=["dino.optim.lr=0.5"])
    whole = yaml.safe_load(dump(load(fields=fields)))  # where every entry has what all of them share
    for given in (fields, whole):
        both = load(fields=given, assignments=["dino.optim.clip=2", "dino.out_dim=64"]).methods
        assert [entry.options["optim"] for entry in both] == [{"lr": 0.1, "clip": 2}, {"lr": 1, "clip": 2}]
        assert [entry.options["out_dim"] for entry in both] == [64, 64]


def test_assignments_follow_each_other():
    fields = {"dataset": "digits", "methods": ["byol"], "backbone": {"name": "vit_tiny", "patch_size": 8}}
    config = load(fields=fields, assignments=["backbone=resnet8", "backbone.width=32", "budget.steps=3"])
    assert (config.backbone.name, config.backbone.options) == ("resnet8", {"width": 32})
    assert config.budget == Budget(steps=3)


def test_variants_have_labels_and_options_of_their_own():
    methods = ["byol", {"method": "dino", "label": "dino-no-center", "centering": "none"}]
    config = load(fields={"methods": methods, "dataset": "digits"})
    assert [(m.method, m.label, m.options) for m in config.methods] == [
        ("byol", "byol", {}),
        ("dino", "dino-no-center", {"centering": "none"}),
    ]


def test_dump_reads_back_to_the_same():
    methods = ["byol", {"method": "dino", "label": "d", "optim": {"lr": 0.5}}]
    fields = {
        "methods": methods,
        "dataset": "digits",
        "backbone": {"name": "resnet8", "width": 8},
        "seeds": [4],
        "init": "start.pth",
        "frozen": ["timm:resnet18", "other.pth"],
    }
    config = load(fields=fields)
    assert load(fields=yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize(
    ("fields", "assignments", "words"),
    [
        ({"dataset": "digits"}, [], "methods is missing"),
        ({"methods": ["byol"]}, [], "dataset is missing"),
        ({"bugdet": {"epochs": 3}}, [], "did you mean 'budget'"),
        ({"run": {"log_evry": 3}}, [], "did you mean 'run.log_every'"),
        ({"budget": {"epochs": 3, "steps": 4}}, [], "exactly one of epochs, images, steps"),
        ({"budget": {"epochs": -1}}, [], "budget.epochs"),
        ({"batch_size": 1}, [], "batch_size"),
        ({"seeds": 0}, [], "a number of seeds from 1 on"),
        ({"methods": ["byol", "byol"]}, [], "labels must differ"),
        ({"methods": [{"method": "byol", "label": "../x"}]}, [], "a label names a folder"),
        ({"methods": [{"method": "byol", "label": "random"}]}, [], "pixels label the references"),
        ({}, ["nonsense"], "write section.field=value"),
        ({}, ["moco.queue_size=5"], "add it to methods"),
        ({"plugins": ["no_such_module_of_mine"]}, [], "give an importable module or a .py file"),
    ],
)
def test_wrong_configuration_says_what_to_do(fields, assignments, words):
    base = {} if {"methods", "dataset"} & fields.keys() == {"dataset"} else {"methods": ["byol"]}
    base |= {} if fields == {"methods": ["byol"]} else {"dataset": "digits"}
    with pytest.raises(ValueError, match=r".") as caught:
        load(fields={**base, **fields}, assignments=assignments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "dyno", "--dataset", "digits"], "did you mean 'dino'"),
        (["--methods", "dino", "--dataset", "cifar"], "did you mean 'cifar10'"),
        (["--methods", "dino", "--dataset", "digits", "--backbone", "resnet19"], "did you mean 'resnet18'"),
        (
            ["--methods", "dino", "--dataset", "digits", "--set", "dino.outdim=3"],
            "did you mean 'dino.out_dim'",
        ),
        (["--methods", "dino", "--dataset", "digits", "--set", "dino.out_dim=0"], "dino.out_dim"),
        (["--methods", "dino", "--dataset", "digits", "--budget", "3"], "epochs=20"),
        (["--methods", "dino", "--dataset", "digits", "--budget", "images=3"], "less than one batch"),
        (["--methods", "dino", "--dataset", "digits", "--batch-size", "5000"], "batch_size"),
        (["--config", "no-such-file.yaml"], "no such file"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--methods", "dino", "--dataset", "cifar10", "--data-dir", "/nowhere"], "--data-dir"),
    ],
)
def test_wrong_command_exits_with_2_and_one_message(arguments, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_are_valid_to_the_last_field(file):
    config = load(file)
    for entry in config.methods:
        built = method_class(entry.method).Config(**entry.options)
        assert built.model_fields_set == set(entry.options)


def test_there_is_a_paper_recipe_for_every_method():
    named = {entry.method for file in RECIPES for entry in load(file).methods if "recipes" in str(file)}
    assert named == {method.name for method in describe_methods() if method.owner.startswith("ssl_zoo.")}


def test_budget_counts_whole_steps():
    assert Budget(epochs=3).steps_for(images=1000, batch_size=256) == 11
    assert Budget(epochs=0.5).steps_for(images=1000, batch_size=100) == 5
    assert Budget(images=999).steps_for(images=50, batch_size=10) == 99
    assert Budget(steps=7).steps_for(images=50, batch_size=10) == 7
    with pytest.raises(ValueError, match="less than one batch"):
        Budget(images=9).steps_for(images=50, batch_size=10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "ssl-zoo bench --methods dino byol --dataset digits"),
        (["list", "methods"], "a student matches a centred and sharpened momentum teacher"),
    ],
)
def test_help_and_lists_teach_without_importing_torch(arguments, words):
    code = f"import sys, ssl_zoo.cli as c; c.app({arguments}, result_action='return_value')"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
