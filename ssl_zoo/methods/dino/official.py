"""Checkpoints of facebookresearch/dino: read into our names, and written in theirs."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo.errors import listed
from ssl_zoo.foreign import read_checkpoint
from ssl_zoo.methods.dino.method import DINO

Weights = dict[str, Tensor]

_NORM = "last_layer.parametrizations.weight."
_HEAD = {  # main_dino.py's names in a head, and ours; of one layer its MLP is no Sequential
    "last_layer.weight_g": f"{_NORM}original0",
    "last_layer.weight_v": f"{_NORM}original1",
    "mlp.weight": "mlp.0.weight",
    "mlp.bias": "mlp.0.bias",
}
_CELL = "checkpoint.pt"


class Network(NamedTuple):
    """Weights of a student or teacher: `backbone` under timm's or torchvision's names, `head` under ours."""

    backbone: Weights
    head: Weights


class OfficialCheckpoint(NamedTuple):
    """A checkpoint of main_dino.py; of a file that holds a backbone alone there is only `teacher.backbone`.

    `center` [1, K]; `epoch` is the one that training would go on with; `args` its command line.
    """

    teacher: Network
    student: Network | None
    center: Tensor | None
    epoch: int | None
    args: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `create_method("dino", backbone, ...)` with which the head fits.

        Raises ValueError for a backbone alone.
        """
        head = self.teacher.head
        layers = _linears(head, "mlp.")
        if not layers:
            raise ValueError("the checkpoint is a backbone alone: there is no head to take the options of")
        return {
            "out_dim": len(head[f"{_NORM}original1"]),
            "hidden_dim": len(layers[0]),
            "bottleneck_dim": len(layers[-1]),
            "num_layers": len(layers),
            "use_bn": any(key.endswith("running_mean") for key in head),
            "norm_last_layer": bool(self.args.get("norm_last_layer", True)),
        }

    def load_into(self, method: DINO) -> None:
        """Load student, teacher and center, all or nothing.

        Raises ValueError that lists every name that is missing or unexpected and every other shape.
        """
        student = self.student or Network({}, {})
        parts: dict[str, tuple[nn.Module, Weights]] = {
            "student.backbone": (method.student.backbone.net, student.backbone),
            "student.head": (method.student.head, student.head),
            "teacher.backbone": (method.teacher.module.backbone.net, self.teacher.backbone),
            "teacher.head": (method.teacher.module.head, self.teacher.head),
            "loss": (method.loss, {} if self.center is None else {"center": self.center}),
        }
        missing, unexpected, shapes = list[str](), list[str](), list[str]()
        for name, (module, weights) in parts.items():
            own: Weights = module.state_dict()
            missing += [f"{name}.{key}" for key in own if key not in weights]
            unexpected += [f"{name}.{key}" for key in weights if key not in own]
            for key in own.keys() & weights.keys():
                if own[key].shape != weights[key].shape:
                    shapes.append(f"{name}.{key} {list(weights[key].shape)} for {list(own[key].shape)}")
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": sorted(shapes)}
        if any(problems.values()):
            advice = (
                "build the backbone of args.arch at its own image and patch size, and the method with "
                "**checkpoint.options"
                if self.student
                else "it is a backbone alone: give the file as init, or load teacher.backbone into a network"
            )
            raise ValueError(
                f"the checkpoint does not fit the method, so nothing was loaded; {advice}"
                + "".join(f"\n  {what}: {listed(names)}" for what, names in problems.items() if names)
            )
        for module, weights in parts.values():
            module.load_state_dict(weights)


def load_official_checkpoint(path: Path | str) -> OfficialCheckpoint:
    """Read checkpoint.pth of main_dino.py, or one of the released backbones; nothing in it is run.

    `module.` and `backbone.` before the names are taken off, `weight_g` and `weight_v` get the names of
    torch's parametrization. Raises FileNotFoundError, ValueError for anything else in the file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint at {file}; give checkpoint.pth, or a backbone's .pth")
    content = read_checkpoint(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds a {type(content).__name__}; give a checkpoint of main_dino.py")
    if "teacher" not in content:
        return OfficialCheckpoint(_network(file, "", content), None, None, None, {})
    loss = content.get("dino_loss")
    missing = [part for part in ("student", "epoch") if part not in content]
    center = loss.get("center") if isinstance(loss, Mapping) else None
    if not isinstance(center, Tensor):
        missing.append("center in dino_loss")
    if missing:
        raise ValueError(
            f"{file} has a teacher, but no {', '.join(missing)}; give checkpoint.pth of main_dino.py"
        )
    args = content.get("args")
    return OfficialCheckpoint(
        teacher=_network(file, "teacher", content["teacher"]),
        student=_network(file, "student", content["student"]),
        center=center,
        epoch=content["epoch"],
        args=vars(args) if isinstance(args, Namespace) else dict(args or {}),
    )


def export_official_checkpoint(source: DINO | Path | str, file: Path | str) -> None:
    """Write a DINO method, or the run of a cell folder, as main_dino.py writes checkpoint.pth.

    Student, teacher and center, for its evaluation scripts (`--pretrained_weights`) and to start its training
    from, with epoch 0: the optimizer is not part of it. Tensors alone, so `torch.load` reads it as it is.
    Raises FileNotFoundError for a folder without checkpoint, ValueError for a run of another method.
    """
    state = source.state_dict() if isinstance(source, DINO) else _run(Path(source))
    student = _official(state, "student.", "module.")
    # with batch norm the official teacher is wrapped for several devices as well
    wrapped = "module." if any(key.endswith("running_mean") for key in student) else ""
    teacher = _official(state, "teacher.module.", wrapped)
    content = {"student": student, "teacher": teacher, "epoch": 0}
    torch.save({**content, "dino_loss": {"center": state["loss.center"].cpu()}}, file)


def _linears(weights: Weights, prefix: str) -> list[Tensor]:
    """The weights of the linear layers under `prefix`, from input to output."""
    return [value for key, value in weights.items() if key.startswith(prefix) and value.ndim == 2]


def _network(file: Path, part: str, state: Any) -> Network:
    if not (state and isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())):
        held = listed(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"{part or 'the content'} of {file} is no state dict of tensors, it holds {held or 'nothing'}; "
            "give checkpoint.pth of main_dino.py, or a backbone's .pth"
        )
    weights = {key.removeprefix("module."): value for key, value in state.items()}
    if not any(key.startswith("backbone.") for key in weights):
        return Network(weights, {})
    backbone = {key[9:]: value for key, value in weights.items() if key.startswith("backbone.")}
    head = {key[5:]: value for key, value in weights.items() if key.startswith("head.")}
    if other := [key for key in weights if not key.startswith(("backbone.", "head."))]:
        raise ValueError(f"{file} has names of neither backbone nor head: {listed(other)}")
    return Network(backbone, {_HEAD.get(key, key): value for key, value in head.items()})


def _run(folder: Path) -> Weights:
    file = folder / _CELL
    if not file.is_file():
        raise FileNotFoundError(f"no {_CELL} in {folder}; give the folder of a bench's cell of DINO")
    state: Weights = read_checkpoint(file)["method"]
    if "loss.center" not in state or not any(key.startswith("student.head.mlp.") for key in state):
        raise ValueError(f"{folder} is no run of DINO; give the folder of a bench's cell of DINO")
    return state


def _official(state: Weights, prefix: str, wrapped: str) -> Weights:
    """The network of our `state` under `prefix`, with the names that main_dino.py gives it."""
    single = len(_linears(state, f"{prefix}head.mlp.")) == 1
    theirs = {ours: name for name, ours in _HEAD.items() if single or name.startswith("last_layer")}
    backbone, head = f"{prefix}backbone.net.", f"{prefix}head."
    network = {}
    for key, value in state.items():
        if key.startswith(backbone):
            network[f"{wrapped}backbone.{key.removeprefix(backbone)}"] = value.cpu()
        elif key.startswith(head):
            name = key.removeprefix(head)
            network[f"{wrapped}head.{theirs.get(name, name)}"] = value.cpu()
    return network
