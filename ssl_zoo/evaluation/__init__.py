"""From an encoder to named numbers: classification, retrieval, clustering and signs of collapse."""

from typing import TYPE_CHECKING, Any

from ssl_zoo.evaluation.collapse import collapse_verdict
from ssl_zoo.evaluation.encoder import Encoder, load_encoder, save_encoder
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import weighted_knn
from ssl_zoo.evaluation.search import search

if TYPE_CHECKING:
    from ssl_zoo.evaluation.scores import evaluate, score

__all__ = [
    "Encoder",
    "collapse_verdict",
    "evaluate",
    "extract",
    "load_encoder",
    "save_encoder",
    "score",
    "search",
    "weighted_knn",
]


def __getattr__(name: str) -> Any:
    """`evaluate` and `score`, later: they need scikit-learn, which takes a second that a plan can save."""
    if name not in ("evaluate", "score"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from ssl_zoo.evaluation import scores

    return getattr(scores, name)
