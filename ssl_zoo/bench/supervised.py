"""The reference that is told the labels: the same backbone, trained by cross-entropy on the same budget."""

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.data.datasets import Split
from ssl_zoo.data.splits import Roles
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, each_view
from ssl_zoo.optim import OptimConfig

_PLAIN = Augment(32, scale=(0.25, 1.0), jitter_p=0.0, gray_p=0.0)


class SupervisedConfig(MethodConfig):
    """One crop an image, flipped but not recoloured; the optimizer that the methods start from as well."""

    optim: OptimConfig = OptimConfig(lr=2e-3, weight_decay=0.04)
    views: ViewSpec = ViewSpec(global_views=(_PLAIN,))


class Supervised(Method):
    """A linear classifier over the backbone; evaluates the backbone.

    Not in the registry, since a method gets no labels: these come through the constructor, with the images
    that `Views.index` counts.
    """

    name = "supervised"
    Config = SupervisedConfig

    labels: Tensor

    def __init__(self, backbone: Backbone, config: MethodConfig, split: Split) -> None:
        super().__init__(backbone, config)
        assert split.labels is not None
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_dim, len(split.classes))
        self.register_buffer("labels", split.labels, persistent=False)

    @property
    def encoder(self) -> nn.Module:
        return self.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        logits = each_view(nn.Sequential(self.backbone, self.head), views.global_crops).float()
        labels = self.labels[views.index].expand(len(logits), -1)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return StepOutput(loss, {"accuracy": (logits.detach().argmax(-1) == labels).float().mean()})


def to_learn(parts: Roles, batch_size: int) -> Split:
    """The labelled images that the reference is trained on: those of train that are not selected.

    With cross-validation all of train: there the methods see these images as well, and nothing is selected.
    Raises ValueError without labels, or with fewer images than a batch.
    """
    if parts.train.labels is None:
        raise ValueError("the reference 'supervised' needs labels; leave it out of references")
    split = parts.train.take(parts.folds[0][0]) if len(parts.folds) == 1 else parts.train
    if len(split) < batch_size:
        raise ValueError(
            f"the reference 'supervised' has {len(split)} labelled images and batch_size is {batch_size}; "
            "lower it, or leave 'supervised' out of references"
        )
    return split
