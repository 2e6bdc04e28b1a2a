"""The same training step with ssl_zoo's pieces, whole and in its parts."""

import time

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.versus import tasks
from benchmarks.versus.tasks import Task
from benchmarks.versus.timing import timed
from ssl_zoo import create_method
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.method import Step, Views
from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, clip_gradients, create_optimizer, set_schedule
from ssl_zoo.train import Precision, train_step

OPTIM = OptimConfig(
    name="sgd", lr=tasks.LR, min_lr=0.0, warmup_fraction=0.0, weight_decay=tasks.WEIGHT_DECAY, momentum=0.9
)
HEADS = {
    "byol": {"hidden_dim": 1024, "out_dim": 256, "target_momentum": tasks.TEACHER_MOMENTUM},
    "moco": {
        "hidden_dim": 512,
        "out_dim": 128,
        "queue_size": tasks.QUEUE,
        "temperature": tasks.TEMPERATURE,
        "key_momentum": tasks.TEACHER_MOMENTUM,
        "batch_norm_groups": tasks.SPLITS,
    },
    "dino": {
        "out_dim": 2048,
        "hidden_dim": 2048,
        "bottleneck_dim": 256,
        "num_layers": 2,
        "use_bn": True,
        "teacher_momentum": tasks.TEACHER_MOMENTUM,
    },
}
HALFWAY = Step(500, 1000)


class Net(Backbone):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.layers = tasks.backbone(task)
        self.out_dim = tasks.width(task)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Ours:
    """A block of training steps on images in memory: draw, augment, train; `options` are the method's."""

    def __init__(
        self, task: Task, images: Tensor, batch_size: int, precision: Precision = "fp32", **options: object
    ) -> None:
        views = options.pop("views", task.views)
        self.images, self.batch_size, self.precision = images, batch_size, precision
        self.method = create_method(
            task.method, Net(task), views=views, optim=OPTIM, **{**HEADS[task.method], **options}
        )
        self.method.to(memory_format=torch.channels_last).train()
        self.optimizer = create_optimizer(self.method.param_groups(), OPTIM)
        self.collate = MultiCropCollate(views)

    def __call__(self, steps: int) -> list[float]:
        self.step()
        return [timed(self.step) for _ in range(steps)]

    def views(self) -> Views:
        index = torch.randint(len(self.images), (self.batch_size,))
        return self.collate.batch(self.images[index], index, 0)

    def step(self) -> None:
        train_step(self.method, self.method, self.optimizer, self.views(), HALFWAY, self.precision)

    def flops(self) -> int:
        """FLOPs of one step, 2 per multiply-add, of matrix products and convolutions."""
        views = self.views()
        with FlopCounterMode(display=False) as counter:
            train_step(self.method, self.method, self.optimizer, views, HALFWAY)
        return counter.get_total_flops()

    def parts(self) -> dict[str, float]:
        """Seconds of each part of a step, which is `train_step` taken apart."""
        clock = [time.perf_counter()]
        views = self.views()
        clock.append(time.perf_counter())
        set_schedule(self.optimizer, OPTIM, HALFWAY.index, HALFWAY.total)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            output = self.method(views, HALFWAY)
        clock.append(time.perf_counter())
        output.loss.backward()
        clock.append(time.perf_counter())
        self.method.on_grads_ready(HALFWAY)
        clip_gradients(self.method.parameters(), OPTIM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.append(time.perf_counter())
        with torch.no_grad():
            self.method.on_step_end([output._replace(loss=output.loss.detach())], HALFWAY)
        clock.append(time.perf_counter())
        names = ("views", "forward", "backward", "optimizer", "state")
        return {name: clock[i + 1] - clock[i] for i, name in enumerate(names)}
