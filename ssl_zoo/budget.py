"""How long to train: a budget in one unit, and the optimizer steps that it buys."""

from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]


class StepCost(NamedTuple):
    """What one optimizer step costs: FLOPs, 2 per multiply-add, and seconds."""

    flops: int
    seconds: float


class Budget(BaseModel):
    """How long to train, in exactly one unit.

    Passes over the images, images, optimizer steps, floating-point operations, or seconds of training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Positive | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None
    flops: Positive | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            units = ", ".join(type(self).model_fields)
            raise ValueError(f"a budget is exactly one of {units}; given: {given or 'none'}")
        return self

    @property
    def is_measured(self) -> bool:
        """Whether the steps depend on what a step costs: each method has its own."""
        return self.flops is not None or self.seconds is not None

    def steps_for(self, images: int, batch_size: int, cost: StepCost | None = None) -> int:
        """Whole optimizer steps on a set of `images`, for FLOPs and seconds by what one of them costs.

        Raises ValueError if that is less than one, or if the `cost` is needed and not known.
        """
        if self.steps is not None:
            return self.steps
        if self.is_measured:
            return self._affordable(cost)
        wanted = self.images if self.images is not None else round((self.epochs or 0) * images)
        if wanted < batch_size:
            raise ValueError(
                f"a budget of {wanted} images is less than one batch of {batch_size}; "
                "raise the budget or lower batch_size"
            )
        return wanted // batch_size

    def _affordable(self, cost: StepCost | None) -> int:
        (unit, amount), *_ = self.model_dump(exclude_none=True).items()
        if cost is None:
            raise ValueError(
                f"a budget in {unit} needs the cost of a step, which `bench` measures; "
                "give epochs, images or steps here"
            )
        one = getattr(cost, unit)
        if amount < one:
            raise ValueError(
                f"a budget of {amount:g} {unit} is less than one step, which costs {one:.3g}; raise it or "
                "lower batch_size"
            )
        return int(amount // one)
