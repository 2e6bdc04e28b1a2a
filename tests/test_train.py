"""The loop: what is no longer finite is named and never saved, and the device is not waited for."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.datasets import Split
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, create_optimizer
from ssl_zoo.registry import create_method
from ssl_zoo.train import fit, train_step
from ssl_zoo.watch import Watch

IMAGES = Split(torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8), None, (), "made")
VIEWS = ViewSpec((Augment(16, (0.5, 1.0)),) * 2)


class Flat(Backbone):
    out_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.mean((2, 3)))


class Breaks(Method):
    """Breaks what is listed at the given step: the loss, a metric, or a weight's gradient."""

    name = "breaks"

    class Config(MethodConfig):
        views: ViewSpec = VIEWS
        broken: dict[str, int] = Field(default={})
        late_metric: bool = False

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.backbone = backbone

    @property
    def encoder(self) -> nn.Module:
        return self.backbone

    def at(self, what: str, step: Step) -> float:
        return math.inf if self.config.broken.get(what) == step.index else 1.0

    def forward(self, views: Views, step: Step) -> StepOutput:
        loss = self.backbone(views.global_crops[0]).square().mean() * self.at("loss", step)
        metrics = {name: torch.tensor(step.index + 0.5) * self.at(name, step) for name in ("first", "second")}
        if self.config.late_metric and step.index > 2:
            metrics["third"] = torch.tensor(7)
        return StepOutput(loss, metrics)

    def on_grads_ready(self, step: Step) -> None:
        self.backbone.net.bias.grad.mul_(self.at("gradient", step))


def run(broken: dict[str, int], out=None, log_every: int = 4, late_metric: bool = False, **options):
    method = Breaks(Flat(), Breaks.Config(broken=broken, late_metric=late_metric))
    budget = {"steps": 8}
    return fit(method, IMAGES, budget=budget, batch_size=4, out=out, log_every=log_every, **options)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"second": 1}, "^second not finite at step 1; lower optim.lr"),
        ({"second": 5, "first": 6}, "^second not finite at step 5;"),
        ({"first": 2, "second": 2}, "^first, second not finite at step 2;"),
        ({"loss": 7}, "^loss not finite at step 7;"),
        ({"gradient": 4}, "^loss not finite at step 5;"),
        ({"gradient": 7}, "^backbone.net.bias not finite after step 7;"),
    ],
)
def test_what_broke_first_is_named(broken: dict[str, int], message: str) -> None:
    with pytest.raises(FloatingPointError, match=message):
        run(broken)


def test_what_is_named_may_differ_from_step_to_step() -> None:
    assert run({}, late_metric=True).metrics["third"] == 7.0
    with pytest.raises(FloatingPointError, match="first not finite at step 1;"):
        run({"first": 1, "second": 6}, late_metric=True, log_every=8)


@pytest.mark.parametrize(
    ("broken", "saved"), [({"loss": 5}, 5), ({"second": 3}, 3), ({"gradient": 2}, 2), ({"loss": 0}, None)]
)
def test_checkpoint_holds_what_was_finite(broken: dict[str, int], saved: int | None, tmp_path) -> None:
    """Saved after every step, logged after the first and every fourth."""
    with pytest.raises(FloatingPointError):
        run(broken, out=tmp_path, checkpoint_seconds=0)
    file = tmp_path / "checkpoint.pt"
    assert file.exists() is (saved is not None)
    if saved is not None:
        state = torch.load(file)
        assert state["step"] == saved
        assert all(tensor.isfinite().all() for tensor in state["method"].values())
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1 + saved // 4


def test_records_hold_the_latest_values() -> None:
    records = []
    run({}, on_log=lambda record: records.append(copy.copy(record)), log_every=3)
    assert [record["step"] for record in records] == [1, 3, 6, 8]
    assert [record["first"] for record in records] == [0.5, 2.5, 5.5, 7.5]
    assert all(0 < record["loss"] < 10 for record in records)


@pytest.mark.parametrize("name", ["byol", "dino", "moco"])
def test_no_step_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device nothing has a value, so that asking for one is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    meta, optim = torch.device("meta"), OptimConfig(name="sgd", clip=1.0)
    method = create_method(name, create_backbone("resnet8", width=8), views=VIEWS, optim=optim).to(meta)
    optimizer, watch = create_optimizer(method.param_groups(), optim), Watch(meta)
    crops = torch.empty(2, 4, 3, 32, 32, device=meta), torch.empty(3, 4, 3, 16, 16, device=meta)
    views = Views(*crops, *torch.empty(2, 4, dtype=torch.int64, device=meta))
    for index in range(2):
        watch.see(train_step(method, method, optimizer, views, Step(index, 2)), index)
    with pytest.raises(NotImplementedError, match="meta"):
        watch.read()


def test_backbones_are_compiled_in_training_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, ran, plain = [], [], nn.Module.compile

    def backend(graph, _):
        return lambda *inputs: ran.append(graph) or graph(*inputs)

    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **_: compiled.append(self) or plain(self, backend=backend)
    )
    states = []
    for compile_backbones in (False, True):
        torch.manual_seed(0)
        method = create_method("dino", create_backbone("resnet8", width=8), views=VIEWS)
        fit(
            method,
            IMAGES,
            budget={"steps": 3},
            batch_size=4,
            compile_backbones=compile_backbones,
            curve=lambda encoder: {"seen": encoder(torch.zeros(2, 3, 16, 16)).sum().item()},
            curve_steps=[2],
        )
        states.append(method.state_dict())
    assert compiled == [method.student.backbone, method.teacher.module.backbone]
    assert len(ran) == 3 * len(compiled)
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])
