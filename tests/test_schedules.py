"""Schedules as tables over a run, against the formulas of facebookresearch/dino and in its recipes."""

from pathlib import Path

import numpy as np
import pytest

from ssl_zoo.backbones import create_backbone
from ssl_zoo.bench.config import load
from ssl_zoo.data.augment import adapt
from ssl_zoo.method import Augment, Step, ViewSpec
from ssl_zoo.methods.dino import DINO, DINOConfig
from ssl_zoo.optim import OptimConfig, schedule
from ssl_zoo.schedules import cosine, linear, warmup_cosine

RECIPES = sorted(Path("benchmarks/recipes").glob("dino_*_in1k*.yaml"))


def cosine_scheduler(base, final, epochs, steps, warmup_epochs=0):
    """utils.cosine_scheduler: a value per step."""
    warmup = warmup_epochs * steps
    i = np.arange(epochs * steps - warmup)
    rest = final + 0.5 * (base - final) * (1 + np.cos(np.pi * i / len(i)))
    return np.concatenate((np.linspace(0, base, warmup), rest))


def teacher_temperatures(start, end, epochs, steps, warmup_epochs):
    """DINOLoss.teacher_temp_schedule: a value per epoch, repeated over its steps."""
    per_epoch = np.concatenate(
        (np.linspace(start, end, warmup_epochs), np.ones(epochs - warmup_epochs) * end)
    )
    return per_epoch.repeat(steps)


def tables(method: DINO, total: int) -> dict[str, list[float]]:
    steps = [Step(index, total) for index in range(total)]
    scheduled = [schedule(method.config.optim, *step) for step in steps]
    return {
        "lr": [now["lr"] for now in scheduled],
        "weight_decay": [now["weight_decay"] for now in scheduled],
        "momentum": [method.momentum(step) for step in steps],
        "temperature": [method.temperature(step) for step in steps],
    }


def dino(**options) -> DINO:
    small = {"out_dim": 4, "hidden_dim": 4, "bottleneck_dim": 4}
    return DINO(create_backbone("resnet8", width=4), DINOConfig(**{**options, **small}))


@pytest.mark.parametrize(
    ("epochs", "steps", "warmup", "temperature_warmup"),
    [(20, 7, 2, 6), (10, 3, 1, 0), (5, 10, 0, 1), (8, 1, 4, 8)],
)
def test_tables_equal_the_official_ones(epochs, steps, warmup, temperature_warmup) -> None:
    optim = OptimConfig(
        lr=5e-4, min_lr=1e-6, warmup_fraction=warmup / epochs, weight_decay=0.04, weight_decay_end=0.4
    )
    method = dino(
        optim=optim,
        teacher_momentum=0.996,
        warmup_teacher_temperature=0.04,
        teacher_temperature=0.07,
        teacher_temperature_warmup_fraction=temperature_warmup / epochs,
        teacher_temperature_plateaus=temperature_warmup or None,
    )
    expected = {
        "lr": cosine_scheduler(5e-4, 1e-6, epochs, steps, warmup),
        "weight_decay": cosine_scheduler(0.04, 0.4, epochs, steps),
        "momentum": cosine_scheduler(0.996, 1, epochs, steps),
        "temperature": teacher_temperatures(0.04, 0.07, epochs, steps, temperature_warmup),
    }
    for name, table in tables(method, epochs * steps).items():
        np.testing.assert_allclose(table, expected[name], rtol=1e-12, atol=1e-15, err_msg=name)


OFFICIAL = {  # epochs, lr x batch / 256, min_lr, weight decay and its end, temperature and its warm-up epochs
    "dino_vits16_in1k": (100, 5e-4 * 512 / 256, 1e-6, 0.04, 0.4, 0.04, 0),
    "dino_vits16_in1k_boost": (300, 5e-4 * 1024 / 256, 1e-6, 0.04, 0.4, 0.07, 30),
    "dino_resnet50_in1k": (100, 0.03 * 512 / 256, 1e-6, 1e-4, 1e-4, 0.04, 0),
}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_give_the_official_tables(file: Path) -> None:
    config = load(file)
    epochs, lr, min_lr, decay, decay_end, temperature, warmup = OFFICIAL[file.stem]
    assert config.budget.epochs == epochs
    steps = 6  # per epoch, instead of thousands: the shares are the same
    method = dino(**config.methods[0].options)
    assert DINOConfig(**config.methods[0].options).freeze_last_layer_fraction * epochs == pytest.approx(1)
    expected = {
        "lr": cosine_scheduler(lr, min_lr, epochs, steps, 10),
        "weight_decay": cosine_scheduler(decay, decay_end, epochs, steps),
        "momentum": cosine_scheduler(0.996, 1, epochs, steps),
        "temperature": teacher_temperatures(0.04, temperature, epochs, steps, warmup),
    }
    for name, table in tables(method, epochs * steps).items():
        np.testing.assert_allclose(table, expected[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_every_official_recipe_is_there() -> None:
    assert {file.stem for file in RECIPES} == OFFICIAL.keys()


OFFICIAL_METHOD = {  # main_dino.py, vision_transformer.py and the commands of its README
    "out_dim": 65536,
    "hidden_dim": 2048,
    "bottleneck_dim": 256,
    "num_layers": 3,
    "use_bn": False,
    "norm_last_layer": True,
    "student_temperature": 0.1,
    "warmup_teacher_temperature": 0.04,
    "center_momentum": 0.9,
    "centering": "mean",
    "teacher_momentum": 0.996,
}
OFFICIAL_OPTIM = {
    "name": "adamw",
    "momentum": 0.9,
    "betas": (0.9, 0.999),
    "clip": 3.0,
    "clip_mode": "parameter",
}
OFFICIAL_BATCH = {"dino_vits16_in1k": 512, "dino_vits16_in1k_boost": 1024, "dino_resnet50_in1k": 512}


def official_views(global_scale: tuple[float, float], local_scale: tuple[float, float]) -> ViewSpec:
    """DataAugmentationDINO with eight local crops."""

    def view(size: int, scale: tuple[float, float], blur: float, solarize: float = 0.0) -> Augment:
        return Augment(
            size=size,
            scale=scale,
            ratio=(3 / 4, 4 / 3),
            interpolation="bicubic",
            flip=0.5,
            jitter=(0.4, 0.4, 0.2, 0.1),
            jitter_p=0.8,
            gray_p=0.2,
            blur_p=blur,
            blur_sigma=(0.1, 2.0),
            solarize_p=solarize,
        )

    globals_ = view(224, global_scale, 1.0), view(224, global_scale, 0.1, 0.2)
    return ViewSpec(globals_, view(96, local_scale, 0.5), 8)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_resolve_to_what_the_official_code_builds(file: Path) -> None:
    config, of_resnet = load(file), "resnet" in file.stem
    options = DINOConfig(**config.methods[0].options)
    method = OFFICIAL_METHOD | {"norm_last_layer": "boost" not in file.stem}
    assert {name: getattr(options, name) for name in method} == method
    optim = OFFICIAL_OPTIM | ({"name": "sgd"} if of_resnet else {})
    assert {name: getattr(options.optim, name) for name in optim} == optim
    border = 0.14 if of_resnet else 0.4  # between the scales of local and global crops
    assert options.views == official_views((border, 1.0), (0.05, border))
    assert adapt(options.views, config.image_size, grey=False, flip=True, patch=16) == options.views
    vit = {"patch_size": 16, "drop_path": 0.1}
    backbone = ("resnet50", {}) if of_resnet else ("vit_small", vit)
    assert (config.backbone.name, config.backbone.options) == backbone
    assert create_backbone(backbone[0], 224, **backbone[1]).out_dim == (2048 if of_resnet else 384)
    assert (config.image_size, config.batch_size) == (224, OFFICIAL_BATCH[file.stem])


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_runs_shorter_than_a_warmup_work(total: int) -> None:  # the official code raises ValueError
    method = dino(teacher_temperature_warmup_fraction=1.0, teacher_temperature_plateaus=30)
    for warmup in (0.5, 0.9, 1.0):
        optim = OptimConfig(lr=0.5, min_lr=0.0, warmup_fraction=warmup)
        rates = [schedule(optim, index, total)["lr"] for index in range(total)]
        assert rates[0] == 0
        assert max(rates) <= 0.5
    values = tables(method, total)["temperature"]
    assert values == sorted(values)
    assert 0.04 <= min(values) <= max(values) <= 0.07


@pytest.mark.parametrize(
    ("index", "value"), [(0, 0.0), (1, 1 / 9), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1), (32.5, 0.868198)]
)
def test_warmup_reaches_its_peak_at_its_last_step_then_falls(index: float, value: float) -> None:
    assert warmup_cosine(index, 100, peak=1.0, end=0.1, warmup=0.1) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("warmup", "index", "value"), [(0.0, 0, 1.0), (1.0, 5, 0.5), (1.0, 10, 1.0)])
def test_warmup_of_none_or_all_of_the_run(warmup: float, index: int, value: float) -> None:
    assert warmup_cosine(index, 11, 1.0, 0.1, warmup) == pytest.approx(value)


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)])
def test_linear_then_constant(progress: float, value: float) -> None:
    assert linear(progress, 0.04, 0.07, 0.3) == pytest.approx(value)


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 1.0), (0.19, 1.0), (0.2, 2.0), (0.39, 2.0), (0.41, 3.0), (0.6, 3.0)]
)
def test_linear_in_plateaus(progress: float, value: float) -> None:
    assert linear(progress, 1.0, 3.0, 0.6, plateaus=3) == value


def test_linear_of_no_duration_or_one_plateau() -> None:
    assert linear(0.0, 0.04, 0.07, 0.0) == 0.07
    assert [linear(p, 0.04, 0.07, 0.5, plateaus=1) for p in (0.0, 0.4, 0.5)] == [0.04, 0.04, 0.07]


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.04), (0.5, 0.22), (1.0, 0.4), (1 / 3, 0.13)])
def test_cosine(progress: float, value: float) -> None:
    assert cosine(progress, 0.04, 0.4) == pytest.approx(value)
