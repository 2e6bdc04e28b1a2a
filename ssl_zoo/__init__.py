"""Find out which self-supervised vision method is better on your images, and trust the answer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_zoo.backbones import create_backbone, list_backbones
    from ssl_zoo.bench import bench
    from ssl_zoo.budget import Budget
    from ssl_zoo.data.collate import MultiCropCollate
    from ssl_zoo.data.datasets import create_dataset, list_datasets
    from ssl_zoo.ema import EMA
    from ssl_zoo.evaluation import evaluate
    from ssl_zoo.evaluation.encoder import load_encoder
    from ssl_zoo.evaluation.finetune import finetune
    from ssl_zoo.evaluation.transformer import SSLTransformer
    from ssl_zoo.method import Augment, Views, ViewSpec
    from ssl_zoo.registry import create_method, list_methods, register_method
    from ssl_zoo.train import fit

_HOME = {
    "bench": "bench",
    "fit": "train",
    "Budget": "budget",
    "evaluate": "evaluation",
    "load_encoder": "evaluation.encoder",
    "finetune": "evaluation.finetune",
    "SSLTransformer": "evaluation.transformer",
    "create_method": "registry",
    "list_methods": "registry",
    "register_method": "registry",
    "create_backbone": "backbones",
    "list_backbones": "backbones",
    "create_dataset": "data.datasets",
    "list_datasets": "data.datasets",
    "MultiCropCollate": "data.collate",
    "ViewSpec": "method",
    "Augment": "method",
    "Views": "method",
    "EMA": "ema",
}

__all__ = [
    "EMA",
    "Augment",
    "Budget",
    "MultiCropCollate",
    "SSLTransformer",
    "ViewSpec",
    "Views",
    "bench",
    "create_backbone",
    "create_dataset",
    "create_method",
    "evaluate",
    "finetune",
    "fit",
    "list_backbones",
    "list_datasets",
    "list_methods",
    "load_encoder",
    "register_method",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssl_zoo' has no attribute {name!r}; it has {', '.join(__all__)}")
    module = import_module(f"ssl_zoo.{_HOME[name]}")
    return module if name == _HOME[name] else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
