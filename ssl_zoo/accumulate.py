"""A step whose batch passes in parts, for memory: what is cut, what is averaged, and what that changes."""

import copy
import logging

import torch

from ssl_zoo.method import Method, Step, StepOutput, Views

logger = logging.getLogger(__name__)

_ROUNDING = 1e-4  # of a loss; batch norm over parts changes it by percents


def micro_batches(views: Views, count: int) -> list[Views]:
    """Views of `count` consecutive parts of the batch, of one size; raises ValueError if that cannot be."""
    if len(views.key) % count:
        raise ValueError(f"accumulate={count} with {len(views.key)} images at a time; give a divisor of that")
    local = [None] * count if views.local_crops is None else views.local_crops.chunk(count, 1)
    rest = (views.index.chunk(count), views.key.chunk(count))
    return [Views(*part) for part in zip(views.global_crops.chunk(count, 1), local, *rest, strict=True)]


def averaged(outputs: list[StepOutput]) -> StepOutput:
    """Loss and metrics of a step, their means over its micro-batches."""
    if len(outputs) == 1:
        return outputs[0]
    loss = torch.stack([output.loss for output in outputs]).mean()
    names = outputs[0].metrics
    return StepOutput(loss, {n: torch.stack([o.metrics[n] for o in outputs]).mean() for n in names})


@torch.no_grad()
def warn_if_coupled(method: Method, views: Views, step: Step, count: int) -> None:
    """Say so if the loss of `views` is not the mean of its `count` parts': then accumulating changes it.

    That is measured on a copy, for it depends on the backbone's batch norm as much as on the loss.
    """

    def loss(parts: list[Views]) -> float:
        network = copy.deepcopy(method)
        return averaged([network(part, step) for part in parts]).loss.item()

    whole, apart = loss([views]), loss(micro_batches(views, count))
    if abs(whole - apart) > _ROUNDING * abs(whole):
        logger.warning(
            "accumulate=%d: the first loss of %s is %.5f in parts, %.5f at once, since batch norm, the loss "
            "or dropout depend on which images pass together; results are not those of the larger batch",
            count,
            method.name,
            apart,
            whole,
        )
