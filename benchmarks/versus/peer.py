"""lightly as installed: transforms on PIL images in a DataLoader, heads, losses and momentum update."""

import multiprocessing
from collections.abc import Sequence

import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules.heads import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    MoCoProjectionHead,
    ProjectionHead,
)
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from lightly.transforms import BYOLTransform, DINOTransform, SimCLRTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms.v2.functional import to_pil_image

from benchmarks.versus import tasks
from benchmarks.versus.tasks import Task
from benchmarks.versus.timing import Block, timed

_ENOUGH = 10_000  # batches: workers must not run out of work
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"  # fork can hang


class Peer(nn.Module):
    """A training step as in lightly's CIFAR-10 benchmark; `tuned` adds channels_last and, where given, bf16.

    MoCo keeps its layout: lightly's SplitBatchNorm raises RuntimeError for channels_last.
    """

    def __init__(
        self, task: Task, *, tuned: bool = False, bf16: bool = False, device: torch.device = tasks.CPU
    ) -> None:
        super().__init__()
        self.method = task.method
        splits = tasks.SPLITS if task.method == "moco" else 0
        self.student, self.teacher = (
            nn.Sequential(tasks.backbone(task, splits), _head(task)) for _ in range(2)
        )
        deactivate_requires_grad(self.teacher)
        self.predictor = BYOLPredictionHead(256, 1024, 256) if task.method == "byol" else nn.Identity()
        self.criterion = {
            "byol": NegativeCosineSimilarity,
            "moco": lambda: NTXentLoss(tasks.TEMPERATURE, memory_bank_size=(tasks.QUEUE, 128)),
            "dino": lambda: DINOLoss(output_dim=2048),
        }[task.method]()
        self.bf16 = bf16
        self.layout = torch.channels_last if tuned and task.method != "moco" else torch.contiguous_format
        self.device = device
        self.to(device).to(memory_format=self.layout)
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=tasks.LR, momentum=tasks.MOMENTUM, weight_decay=tasks.WEIGHT_DECAY
        )

    def step(self, views: Sequence[Tensor]) -> None:
        update_momentum(self.student, self.teacher, m=tasks.TEACHER_MOMENTUM)
        views = [view.to(self.device, memory_format=self.layout) for view in views]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self._loss(views)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, views: Sequence[Tensor]) -> Tensor:
        match self.method:
            case "byol":
                p0, z0 = self.predictor(self.student(views[0])), self.teacher(views[0]).detach()
                p1, z1 = self.predictor(self.student(views[1])), self.teacher(views[1]).detach()
                return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))
            case "moco":
                return 0.5 * (self._contrast(views[0], views[1]) + self._contrast(views[1], views[0]))
            case _:
                teacher = [self.teacher(view) for view in views[:2]]
                student = [self.student(view) for view in views]
                return self.criterion(teacher, student, epoch=0)

    def _contrast(self, query: Tensor, key: Tensor) -> Tensor:
        key, order = batch_shuffle(key)
        return self.criterion(self.student(query), batch_unshuffle(self.teacher(key), order))


class Batches:
    """Batches of augmented views without end, made by `workers` processes (0: by this one)."""

    def __init__(self, task: Task, images: Tensor, batch_size: int, workers: int) -> None:
        dataset = _Transformed([to_pil_image(image) for image in images], transform(task))
        loader = DataLoader(
            dataset,
            batch_size,
            sampler=RandomSampler(dataset, replacement=True, num_samples=_ENOUGH * batch_size),
            num_workers=workers,
            prefetch_factor=1 if workers else None,  # the queue is full sooner; throughput is the same
            multiprocessing_context=_START if workers else None,
        )
        self.workers = workers
        self.next = iter(loader).__next__

    def training(self, peer: Peer) -> Block:
        """A block of training steps, each with the time its batch took to arrive."""

        def block(steps: int) -> list[float]:
            for _ in range(1 + self.workers):  # what was prefetched while others ran
                peer.step(self.next())
            return [timed(lambda: peer.step(self.next())) for _ in range(steps)]

        return block


def transform(task: Task):
    """lightly's transform with the settings of its benchmark: 32 px, no blur."""
    match task.method:
        case "byol":
            first, second = (
                view(input_size=32, gaussian_blur=0.0) for view in (BYOLView1Transform, BYOLView2Transform)
            )
            return BYOLTransform(first, second)
        case "moco":
            return SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)
        case _:
            sizes = {"global_crop_size": 32, "local_crop_size": 16, "n_local_views": task.local}
            return DINOTransform(gaussian_blur=(0.0, 0.0, 0.0), **sizes)


def _head(task: Task) -> nn.Module:
    features = tasks.width(task)
    match task.method:
        case "byol":
            return BYOLProjectionHead(features, 1024, 256)
        case "moco":
            return MoCoProjectionHead(features, 512, 128)
        case _:
            head = DINOProjectionHead(features, 2048, 256, 2048, batch_norm=True)
            two = [(features, 2048, nn.BatchNorm1d(2048), nn.GELU()), (2048, 256, None, None)]
            head.layers = ProjectionHead(two).layers  # two layers for CIFAR-10, as in lightly's benchmark
            return head


class _Transformed(Dataset):
    """Images already decoded in memory, which lightly's own benchmark reads from PNG files."""

    def __init__(self, images: list[Image.Image], transform) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.images[index])
