"""The contract as runnable checks: `check_method` for every method, in-tree or third-party."""

import copy
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ssl_zoo.backbones import create_backbone
from ssl_zoo.draws import seed_from
from ssl_zoo.method import Method, MethodConfig, Step, StepOutput, Views
from ssl_zoo.nets import Backbone, TokenBackbone
from ssl_zoo.optim import create_optimizer
from ssl_zoo.train import Precision, train_step

GLOBAL_PX, LOCAL_PX = 32, 16
_HIDDEN_STATE = "it lies outside parameters and buffers; register_buffer what moves, take counters from step"


def check_method(cls: type[Method], backbone: Backbone | None = None, **options: Any) -> list[str]:
    """Run the contract's checks on a method class and return their names; none is ever skipped.

    `backbone` is copied, by default a tiny one of the kind that `cls.backbone_type` asks for; `options` are
    fields of `cls.Config`. Images are 32 px (local crops 16 px), `views.index` runs from 0 to 7.
    Raises AssertionError with what is wrong, what the contract says and what to do.
    """
    with torch.random.fork_rng(devices=[]):
        if backbone is None and issubclass(cls.backbone_type, TokenBackbone):
            backbone = create_backbone("vit_tiny", GLOBAL_PX, depth=1, patch_size=8)
        case = _Case(cls, options, backbone or create_backbone("resnet8", GLOBAL_PX, width=8))
        for check in _CHECKS:
            try:
                faults = list(check(case))
            except Exception as error:
                faults = [f"raised {type(error).__name__}: {error}"]
            if faults:
                raise AssertionError(f"{cls.__name__}, {check.__name__[1:]}: {'; '.join(faults)}")
    return [check.__name__[1:] for check in _CHECKS]


@dataclass(frozen=True)
class _Case:
    """A method class with what is needed to build, feed and train it reproducibly."""

    cls: type[Method]
    options: dict[str, Any]
    backbone: Backbone
    batch: int = 8
    precision: Precision = "fp32"

    @property
    def config(self) -> MethodConfig:
        return self.cls.Config(**self.options)

    def method(self, seed: int = 0) -> Method:
        torch.manual_seed(seed)
        return self.cls(copy.deepcopy(self.backbone), self.config).train()

    def build(self, seed: int = 0) -> tuple[Method, Optimizer]:
        method = self.method(seed)
        return method, create_optimizer(method.param_groups(), self.config.optim)

    def views(self, index: int) -> Views:
        torch.manual_seed(index)
        spec = self.config.views
        sizes = [GLOBAL_PX] * len(spec.global_views) + [LOCAL_PX] * spec.local_count
        return Views.from_list([torch.randn(self.batch, 3, px, px) for px in sizes], torch.arange(self.batch))

    def train(self, method: Method, optimizer: Optimizer, steps: range, total: int) -> StepOutput:
        """Steps of the training loop, torch seeded before each as in `fit`; returns the last output."""
        for index in steps:
            views, step = self.views(index), Step(index, total)
            torch.manual_seed(seed_from(0, index, 0))
            output = train_step(method, method, optimizer, views, step, self.precision)
        return output

    def trained(self) -> Method:
        """A method after two of six steps: student and teacher differ."""
        method, optimizer = self.build()
        self.train(method, optimizer, range(2), 6)
        return method

    def forward(self, method: Method, index: int = 2) -> StepOutput:
        """One forward pass from a fixed seed, at step `index` of six."""
        views = self.views(index)
        torch.manual_seed(0)
        output: StepOutput = method(views, Step(index, 6))
        return output


def _class_and_config(case: _Case) -> Iterator[str]:
    config, fields = case.cls.Config, case.cls.Config.model_fields
    if not getattr(case.cls, "name", ""):
        yield 'the class has no name; decorate it with @register_method("...")'
    if not issubclass(config, MethodConfig):
        yield "Config is not derived from MethodConfig"
    if required := [name for name, field in fields.items() if field.is_required()]:
        yield f"Config fields {required} have no default; give each one, so that a name is enough"
        return
    if not config.model_config.get("frozen"):
        yield "Config can be changed after it was made; keep MethodConfig's frozen=True"
    if config.model_config.get("extra") != "forbid":
        yield "Config takes unknown keys, so typing errors pass; keep MethodConfig's extra='forbid'"
    if config.model_validate_json(case.config.model_dump_json()) != case.config:
        yield "Config changes on its way through JSON, in which plans are kept; use plain field types"


def _param_groups_hold_each_trainable_parameter_once(case: _Case) -> Iterator[str]:
    method = case.method()
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    counts = Counter(names.get(id(p), "a stranger") for group in method.param_groups() for p in group.params)
    trainable = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    if not trainable:
        yield "no parameter requires a gradient; freeze a copy (EMA), not the network itself"
    if missing := sorted(trainable - counts.keys()):
        yield f"param_groups leaves out {missing}; add them or set requires_grad_(False)"
    if strange := sorted(counts.keys() - trainable):
        yield f"param_groups holds {strange}, which are not trainable; leave them out"
    if twice := [name for name, count in counts.items() if count > 1]:
        yield f"param_groups holds {twice} more than once; put each into one group"


def _forward_returns_loss_metrics_and_carry(case: _Case) -> Iterator[str]:
    loss, metrics, carry = case.forward(case.method())
    if loss.ndim or not loss.isfinite().all():
        yield f"the loss is {loss.tolist()}; return a finite scalar, the mean over images"
    if not loss.requires_grad:
        yield "the loss has no gradient; compute the student's part outside of torch.no_grad()"
    for name, value in metrics.items():
        if value.ndim or value.requires_grad:
            yield f"metric {name!r} is no detached scalar; take its mean() and detach() it"
    if any(tensor.requires_grad for tensor in _tensors(carry)):
        yield "carry holds the graph of the step, and its memory; detach() it"


def _encoder_maps_images_to_features(case: _Case) -> Iterator[str]:
    method = case.trained()
    owned = {id(tensor) for tensor in _state(method).values()}
    if strange := [name for name, tensor in _state(method.encoder).items() if id(tensor) not in owned]:
        yield f"encoder holds {strange[:3]}, which the method does not; return a module of the method"
    if not isinstance(method.encoder, Backbone):
        yield f"encoder is a {type(method.encoder).__name__}; return the backbone it was given, or a copy"
    shape = tuple(method.encoder.eval()(case.views(0).global_crops[0]).shape)
    if shape != (wanted := (case.batch, case.backbone.out_dim)):
        yield f"encoder maps to {shape}; it must be [B, out_dim] = {wanted}"


def _forward_changes_no_state(case: _Case) -> Iterator[str]:
    method = case.trained()
    before = _snapshot(method)
    case.forward(method).loss.backward()  # type: ignore[no-untyped-call]
    method.on_grads_ready(Step(2, 6))
    norms = [n for n, m in method.named_modules(remove_duplicate=False) if isinstance(m, _BatchNorm)]
    statistics = {f"{n}.{s}" for n in norms for s in ("running_mean", "running_var", "num_batches_tracked")}
    if moved := [name for name in _differences(before, _snapshot(method)) if name not in statistics]:
        yield f"forward or on_grads_ready moved {moved[:3]}; move teacher, center and queue in on_step_end"


def _state_dict_is_the_whole_truth(case: _Case) -> Iterator[str]:
    method = case.trained()
    duplicate, loaded = copy.deepcopy(method), case.method(seed=1)
    loaded.load_state_dict(_through_a_file(method.state_dict()))
    expected = case.forward(method)
    others = {"the same method": method, "its deep copy": duplicate, "its state_dict in a new one": loaded}
    for who, other in others.items():
        output = case.forward(other)
        if not all(map(torch.equal, _tensors(expected), _tensors(output))):
            losses = f"loss {output.loss.item()}, not {expected.loss.item()}"
            yield f"{who} computes something else, {losses}. State is hidden: {_HIDDEN_STATE}"


def _on_step_end_leaves_trained_parameters_alone(case: _Case) -> Iterator[str]:
    method = case.trained()
    micro_batches = [case.forward(method, index) for index in (2, 3)]
    trained = _trained(method)
    values, versions = _snapshot(method), {name: tensor._version for name, tensor in trained.items()}
    with torch.no_grad():
        method.on_step_end([out._replace(loss=out.loss.detach()) for out in micro_batches], Step(2, 6))
    written = {name for name, tensor in trained.items() if tensor._version != versions[name]}
    moved = written.union(_differences(values, _snapshot(method))).intersection(trained)
    if unknown := method.projected - trained.keys():
        yield f"projected names {sorted(unknown)}, which are not trained parameters"
    if wrong := sorted(moved - method.projected):
        yield f"on_step_end wrote to trained {wrong[:3]}; use EMA(student), or list it in `projected`"


def _trained_and_untrained_share_no_storage(case: _Case) -> Iterator[str]:
    method = case.method()
    trained = _trained(method)
    owned = {tensor.untyped_storage().data_ptr() for tensor in trained.values()}
    untrained = {name: tensor for name, tensor in _state(method).items() if name not in trained}
    if shared := [n for n, t in untrained.items() if t.numel() and t.untyped_storage().data_ptr() in owned]:
        yield f"{shared[:3]} share storage with trained parameters; copy them: EMA(module) or clone()"


def _gradients_reach_every_parameter(case: _Case) -> Iterator[str]:
    method, optimizer = case.build()
    trained, reached = _trained(method), set[str]()
    optimizer.register_step_pre_hook(
        lambda *_: reached.update(name for name, tensor in trained.items() if tensor.grad is not None)
    )
    case.train(method, optimizer, range(3), 3)
    if unreached := sorted(trained.keys() - reached):
        yield f"{unreached[:3]} got no gradient in 3 steps; use them or set requires_grad_(False)"


def _resume_is_bit_exact(case: _Case) -> Iterator[str]:
    whole, optimizer = case.build()
    case.train(whole, optimizer, range(6), 6)
    part, optimizer = case.build()
    case.train(part, optimizer, range(3), 6)
    saved = _through_a_file({"method": part.state_dict(), "optimizer": optimizer.state_dict()})
    resumed, optimizer = case.build(seed=1)
    resumed.load_state_dict(saved["method"])
    optimizer.load_state_dict(saved["optimizer"])
    case.train(resumed, optimizer, range(3, 6), 6)
    if moved := _differences(_snapshot(whole), _snapshot(resumed)):
        yield f"3 steps, a save and 3 more differ from 6 in {moved[:3]}. State is hidden: {_HIDDEN_STATE}"


def _schedules_follow_progress(case: _Case) -> Iterator[str]:
    method, states = case.trained(), []
    for step in (Step(3, 6), Step(300, 600)):
        torch.manual_seed(0)
        one = copy.deepcopy(method)
        optimizer = create_optimizer(one.param_groups(), one.config.optim)
        loss = train_step(one, one, optimizer, case.views(0), step).loss
        states.append({"the loss": loss, **_snapshot(one)})
    if moved := _differences(*states):
        yield f"step 3 of 6 and 300 of 600 differ in {moved[:3]}; make schedules functions of step.progress"


def _one_step_two_images_and_bf16_work(case: _Case) -> Iterator[str]:
    runs = {
        "a run of one step": (case, 1),
        "two steps with two images each": (replace(case, batch=2), 2),
        "a step under bf16 autocast": (replace(case, precision="bf16"), 1),
    }
    for what, (case, steps) in runs.items():
        method, optimizer = case.build()
        loss = case.train(method, optimizer, range(steps), steps).loss
        if loss.dtype != torch.float32:
            yield f"the loss is {loss.dtype} in {what}; compute it with autocast off, from logits.float()"
        if broken := [n for n, t in {"the loss": loss, **_state(method)}.items() if not t.isfinite().all()]:
            yield f"{broken[:3]} are not finite after {what}"


_CHECKS: tuple[Callable[[_Case], Iterator[str]], ...] = (
    _class_and_config,
    _param_groups_hold_each_trainable_parameter_once,
    _forward_returns_loss_metrics_and_carry,
    _encoder_maps_images_to_features,
    _forward_changes_no_state,
    _state_dict_is_the_whole_truth,
    _on_step_end_leaves_trained_parameters_alone,
    _trained_and_untrained_share_no_storage,
    _gradients_reach_every_parameter,
    _resume_is_bit_exact,
    _schedules_follow_progress,
    _one_step_two_images_and_bf16_work,
)


def _tensors(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, also under second names."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(module.named_buffers(remove_duplicate=False))}


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _state(module).items()}


def _differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def _trained(method: Method) -> dict[str, nn.Parameter]:
    """What the optimizer moves, under every name."""
    ids = {id(parameter) for group in method.param_groups() for parameter in group.params}
    return {name: p for name, p in method.named_parameters(remove_duplicate=False) if id(p) in ids}


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    torch.save(state, file := io.BytesIO())
    return dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
