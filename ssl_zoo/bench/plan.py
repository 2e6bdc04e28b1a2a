"""The plan of a bench: everything is decided here, frozen and hashed, before anything is trained."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError

from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.weights import absolute, check_weights, load_weights, name_weights
from ssl_zoo.bench.budget import Cost, measure
from ssl_zoo.bench.cells import Cell, Shared
from ssl_zoo.bench.config import BackboneEntry, BenchConfig, DataConfig, MethodEntry, frozen_label
from ssl_zoo.bench.devices import shared_by
from ssl_zoo.bench.supervised import Supervised, SupervisedConfig, to_learn
from ssl_zoo.bench.transfer import open_transfer
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Dataset, Split, create_dataset
from ssl_zoo.data.splits import Roles, evaluated_on, roles
from ssl_zoo.draws import seed_from
from ssl_zoo.errors import explain, shortened, unknown
from ssl_zoo.evaluation.encoder import frozen_encoder
from ssl_zoo.method import Augment, Method, MethodConfig, ViewSpec
from ssl_zoo.nets import Backbone, TokenBackbone
from ssl_zoo.registry import create_method, method_class
from ssl_zoo.spare import wait_until_ready
from ssl_zoo.train import Precision, resolve_device, resolve_precision

SMALL_IMAGE = 64  # px
_SHARED_VIEW = Augment(32, scale=(0.2, 1.0), blur_p=0.5)
SHARED_VIEWS = ViewSpec(global_views=(_SHARED_VIEW, _SHARED_VIEW))


class Plan(NamedTuple):
    """The cells in the order in which they run, the data they run on, and what one image costs per label."""

    cells: list[Cell]
    shared: Shared
    roles: Roles
    dataset: Dataset
    costs: dict[str, Cost]
    notes: list[str]


def plan(config: BenchConfig, planned: Mapping[str, int] | None = None, *, trials: bool = False) -> Plan:
    """Decide everything that a bench does; raises ValueError for what cannot be done as asked.

    `planned` are the steps per label of the same bench in an earlier run. `trials` are scored on the
    selection images, without references beside them.
    """
    planned = planned or {}
    compared = [*planned, *(entry.label for entry in config.methods)]
    if config.evaluation.reference not in (None, *compared) and not trials:
        raise unknown("evaluation.reference", str(config.evaluation.reference), dict.fromkeys(compared))
    source, data = _absolute(config.dataset), _absolute_data(config.data)
    dataset = open_dataset(source, data)
    parts = roles(dataset)
    native = max(parts.pretrain.largest_side, 16)
    image_size = config.image_size or (native if native <= SMALL_IMAGE else 96)
    small = image_size <= SMALL_IMAGE
    backbone = config.backbone or BackboneEntry(name="resnet8" if small else "resnet18")
    batch_size = config.batch_size or min(256, max(2, len(parts.pretrain) // 4))
    if batch_size > (images := len(parts.pretrain)):
        raise ValueError(f"batch_size={batch_size} exceeds the {images} images to train on; lower it")
    device = resolve_device(config.run.device)
    wanted = [_method_config(entry, config.views, len(parts.pretrain)) for entry in config.methods]
    network, notes = _create(backbone, image_size), list(dataset.notes)
    others = _others(config.evaluation.transfer)
    init = absolute(config.init) if config.init else None
    if init:
        notes += load_weights(network, init)
    shared = Shared(
        dataset=short_name(config.dataset),
        fingerprint=parts.fingerprint,
        images=len(parts.pretrain),
        backbone=backbone,
        init=name_weights(init, network) if init else None,
        image_size=image_size,
        batch_size=batch_size,
        budget=config.budget.model_dump(exclude_none=True),
        views=config.views,
        precision=resolve_precision(config.run.precision, device),
        knn_k=config.evaluation.knn_k,
        knn_temperature=config.evaluation.knn_temperature,
        primary_metric=config.evaluation.primary_metric,
        finetune=config.evaluation.finetune,
        eval_data=short_name(config.data.eval) if config.data.eval else None,
        accumulate=config.run.accumulate,
        tuning_trials=config.tuning.trials,
        transfer={name: other.fingerprint for name, other in open_transfer(others, data).items()},
    )
    wait_until_ready()
    num_devices, num_nodes = shared_by(config, batch_size)
    threads = config.run.threads or max(1, torch.get_num_threads() // num_devices)
    configs: dict[str, MethodConfig] = {}
    costs: dict[str, Cost] = {}
    steps: dict[str, int] = {}

    def cost(label: str, method: Method, split: Split) -> None:
        """Measure `method`, of which `steps` can be paid."""
        precision: Precision = shared.precision  # type: ignore[assignment]
        calibrate = config.budget.seconds is not None and label not in planned
        costs[label] = measure(
            method, split, device, precision, batch_size, threads=threads, calibrate=calibrate
        )
        steps[label] = planned.get(label) or config.budget.steps_for(
            len(parts.pretrain), batch_size, costs[label].step
        )

    for entry, method_config in zip(config.methods, wanted, strict=True):
        patch = network.patch_size if isinstance(network, TokenBackbone) else 4
        grey = parts.pretrain.grey
        views = adapt(method_config.views, image_size, grey=grey, flip=dataset.flip, patch=patch)
        _check_kind(network, backbone.name, entry)
        _check_sizes(network, backbone.name, views)
        configs[entry.label] = method_config.model_copy(update={"views": views})
        method = build(shared, entry.method, configs[entry.label], config.seeds[0], init)
        cost(entry.label, method, parts.pretrain)
    if "supervised" in config.references:
        labelled = to_learn(parts, batch_size)
        views = SHARED_VIEWS if config.views == "shared" else SupervisedConfig().views
        views = adapt(views, image_size, grey=labelled.grey, flip=dataset.flip)
        configs["supervised"] = SupervisedConfig(views=views)
        reference = build_supervised(shared, configs["supervised"], config.seeds[0], init, labelled)
        cost("supervised", reference, labelled)
    options = {label: method_config.model_dump(mode="json") for label, method_config in configs.items()}
    frozen: dict[str, str] = {}
    for given in config.frozen:
        weights, label = absolute(given), frozen_label(given)
        encoder, words = frozen_encoder(
            weights, backbone=backbone.name, options=backbone.options, image_size=image_size
        )
        frozen[label], options[label] = weights, {"weights": name_weights(weights, encoder.backbone)}
        notes += words

    def cell(label: str, method: str | None, seed: int) -> Cell:
        asked = {
            "label": label,
            "method": method,
            "seed": seed,
            "options": options.get(label, {}),
            "shared": shared.model_dump(mode="json", exclude={"tuning_trials"}),
        }
        return Cell(
            label=label,
            method=method,
            seed=seed,
            options=options.get(label, {}),
            shared=shared,
            steps=steps.get(label, 0),
            step_flops=costs[label].step.flops if label in costs else 0,
            trial=trials,
            config_hash=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16],
            init=init if label in configs or label == "init" else None,
            frozen=frozen.get(label),
            source=source,
            data=data,
            transfer=others,
            device=str(device),
            threads=threads,
            workers=config.run.workers,
            num_devices=num_devices,
            num_nodes=num_nodes,
            compile=config.run.compile,
            checkpoint_seconds=config.run.checkpoint_seconds,
            log_every=config.run.log_every,
            curve=1 if trials else config.evaluation.curve,
            mapped=seed == config.seeds[0],  # one seed's features are drawn
            on_collapse=config.run.on_collapse,
            plugins=config.plugins,
        )

    each = [label for label in ("random", *config.references) if label != "pixels"]
    once = [*(["init"] if init else []), *(["pixels"] if "pixels" in config.references else []), *frozen]
    cells = []
    for seed in config.seeds:
        references = [*each, *(once if seed == config.seeds[0] else [])]  # those have no part for the seed
        cells += [cell(label, None, seed) for label in references if not trials]
        cells += [cell(entry.label, entry.method, seed) for entry in config.methods]
    return Plan(cells, shared, parts, dataset, costs, notes)


def open_dataset(source: str, data: DataConfig) -> Dataset:
    """The data set `source`, read as the configuration says, with train and test of `data.eval` if given."""
    dataset = create_dataset(
        source,
        data.dir,
        labels=data.labels,
        on_bad_image=data.on_bad_image,
        window=data.window,
        transductive=data.transductive,
    )
    if data.eval is None:
        return dataset
    how = data if ":" in data.eval else DataConfig()  # a public data set needs no reading
    return evaluated_on(
        dataset, create_dataset(data.eval, data.dir, on_bad_image=how.on_bad_image, window=how.window)
    )


def short_name(source: str) -> str:
    """A data set's name without the folders above it: `folder:/home/me/photos` is `folder:photos`."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind != "hf" else source


def build_backbone(shared: Shared, seed: int, init: str | None) -> Backbone:
    """The backbone, whose weights depend on the seed alone, or are those of `init`.

    Raises ValueError if `init` holds other weights than were planned with.
    """
    torch.manual_seed(seed_from(seed, 0))
    backbone = _create(shared.backbone, shared.image_size)
    if init:
        load_weights(backbone, init)
        check_weights(init, backbone, shared.init)
    return backbone


def build(shared: Shared, name: str, config: MethodConfig, seed: int, init: str | None) -> Method:
    """The method over its backbone."""
    backbone = build_backbone(shared, seed, init)
    torch.manual_seed(seed_from(seed, 1))
    return create_method(name, backbone, **{f: getattr(config, f) for f in type(config).model_fields})


def build_supervised(
    shared: Shared, config: MethodConfig, seed: int, init: str | None, split: Split
) -> Supervised:
    """The reference that learns the labels of `split`, over the backbone that the methods start from."""
    backbone = build_backbone(shared, seed, init)
    torch.manual_seed(seed_from(seed, 1))
    return Supervised(backbone, config, split)


def _others(sources: list[str]) -> dict[str, str]:
    """The data sets to transfer to, by name; raises ValueError for two of one name."""
    others = {short_name(source): _absolute(source) for source in sources}
    if len(others) < len(sources):
        raise ValueError(f"evaluation.transfer: {', '.join(sources)}: give data sets of different names")
    return others


def _absolute(source: str) -> str:
    """The source with its path absolute, so that a cell runs from anywhere."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon and kind != "hf" else source


def _absolute_data(data: DataConfig) -> DataConfig:
    paths = {name: getattr(data, name) for name in ("dir", "labels")}
    absolute = {
        name: str(Path(path).expanduser().absolute())
        for name, path in paths.items()
        if path not in (None, "none")
    }
    return data.model_copy(update={**absolute, "eval": data.eval and _absolute(data.eval)})


def _create(backbone: BackboneEntry, image_size: int) -> Backbone:
    try:
        return create_backbone(backbone.name, image_size, **backbone.options)
    except (TypeError, RuntimeError, ArithmeticError, AssertionError) as error:  # timm's and torch's own
        given = ", ".join(f"{name}={shortened(value)}" for name, value in backbone.options.items())
        reason = str(error).partition("\n")[0]
        raise ValueError(f"backbone {backbone.name} with {given or 'no options'}: {reason}") from error


def _check_kind(network: Backbone, name: str, entry: MethodEntry) -> None:
    kind = method_class(entry.method).backbone_type
    if not isinstance(network, kind):
        raise ValueError(f"{entry.label} needs a {kind.__name__}, {name} is none; give one such as vit_tiny")


def _check_sizes(network: Backbone, name: str, views: ViewSpec) -> None:
    for size in {view.size for view in (*views.global_views, views.local) if view}:
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(2, 3, size, size))
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"backbone {name} does not take crops of {size} px; change image_size, the views or the "
                f"backbone ({error})"
            ) from error


def _method_config(entry: MethodEntry, views: str, images: int) -> MethodConfig:
    cls = method_class(entry.method)
    options = {**entry.options, "views": SHARED_VIEWS} if views == "shared" else entry.options
    try:
        return cls.Config(**options).for_data(images)
    except ValidationError as error:
        raise explain(error, cls.Config, entry.label) from None
