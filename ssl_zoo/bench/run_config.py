"""The section `run` of a configuration: where cells run, and how."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

_MANY = ("ray", "slurm")  # executors that run many cells at once, on machines that may go away
_RESTARTS = 3  # of a cell on such a machine


class SlurmConfig(BaseModel):
    """What a job asks for beside its CPUs and GPU; `parameters` are further options of sbatch, by name.

    `minutes` may be fewer than a cell takes: it goes on in a requeued job. The cluster `local` is submitit's
    own, on this machine, without a queue.
    """

    model_config = STRICT

    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    minutes: Annotated[int, Field(ge=1, le=525_600)] = 240
    parameters: dict[str, str | int] = {}


class RunConfig(BaseModel):
    """Where and how cells run; `max_restarts` is 0 on this machine and 3 on others, if it is not given.

    A training is shared by `num_devices` on each of `num_nodes` machines; each passes its part of a batch in
    `accumulate` parts.
    """

    model_config = STRICT

    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    executor: Literal["local", "inline", "ray", "slurm"] = "local"
    ray_address: str | None = None
    slurm: SlurmConfig = SlurmConfig()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    num_devices: Count = 1
    num_nodes: Count = 1
    accumulate: Count = 1
    compile: bool = False
    on_collapse: Literal["warn", "stop"] = "warn"
    max_restarts: Annotated[int, Field(ge=0)] | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    log_every: Count = 20

    @property
    def restarts(self) -> int:
        """How often a cell that failed for a reason that may pass is started again."""
        if self.max_restarts is None:
            return _RESTARTS if self.executor in _MANY else 0
        return self.max_restarts

    @model_validator(mode="after")
    def _no_gpu_of_a_number(self) -> "RunConfig":
        if self.executor in _MANY and self.device.startswith("cuda:"):
            raise ValueError(f"device={self.device}: {self.executor} gives each cell its GPU; write cuda")
        return self
