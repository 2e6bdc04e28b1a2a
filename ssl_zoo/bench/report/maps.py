"""The maps of features as charts, with the thumbnails that stand behind their points."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.bench.maps import COLUMNS, MAP, THUMB, THUMBNAILS
from ssl_zoo.bench.report.figures import TONES, Figure, Key, in_plotly, symbol, traced
from ssl_zoo.bench.report.sources import Arrays, Sources, read_arrays
from ssl_zoo.bench.report.summaries import Row

_MOST_CLASSES = 20  # with a colour and symbol of their own
_MOST_POINTS = 8000  # of all maps together
_REST = "other classes"
_UNLABELLED = "no labels"


class Maps(NamedTuple):
    """Per label the charts `pca` and `tsne`, the legend, and the name and position of every point's image."""

    labels: list[str]
    figures: list[dict[str, Figure]]
    legend: list[Key]
    images: list[tuple[str, int]]


class Sheet(NamedTuple):
    """The thumbnails of all points in one picture, and how they are laid out there."""

    uri: str
    columns: int
    side: int
    width: int


def maps(sources: Sources, rows: Sequence[Row], labels: Sequence[str]) -> Maps | None:
    """Of each label the map of its first seed that has one; None where there is none.

    Labels whose maps show other images than the first are left out.
    """
    found: dict[str, Arrays] = {}
    for row in rows:
        kept = read_arrays(sources.cell(row) / MAP)
        if row["label"] not in found and {"index", "label", "pca", "tsne", "classes"} <= kept.keys():
            found[row["label"]] = kept
    shown = [label for label in labels if label in found]
    if not shown:
        return None
    first = found[shown[0]]
    shown = [label for label in shown if np.array_equal(found[label]["index"], first["index"])]
    names = [str(name) for name in first["classes"]]
    label = first["label"]
    drawn = np.arange(len(label)) % -(-len(label) * len(shown) // _MOST_POINTS) == 0
    classes, counts = np.unique(label, return_counts=True)
    named = sorted(classes[np.argsort(-counts, kind="stable")][:_MOST_CLASSES].tolist())
    legend = [
        Key(_UNLABELLED if i < 0 else names[i], str(place % TONES), symbol(place // TONES))
        for place, i in enumerate(named)
    ]
    members = [np.flatnonzero(drawn & (label == i)) for i in named]
    rest = np.flatnonzero(drawn & ~np.isin(label, named))
    if len(rest):
        legend.append(Key(_REST, "baseline", "circle-open"))
        members.append(rest)
    figures = [
        {kind: _chart(found[name][kind], legend, members) for kind in ("pca", "tsne")} for name in shown
    ]
    pairs = zip(label.tolist(), first["index"].tolist(), strict=True)
    images = [(_UNLABELLED if i < 0 else names[i], position) for i, position in pairs]
    return Maps(shown, figures, legend, images)


def sheet(sources: Sources) -> Sheet | None:
    """The thumbnails of the first bench that has some."""
    for folder in sources.runs.values():
        file = folder / THUMBNAILS
        if file.is_file():
            uri = f"data:image/jpeg;base64,{b64encode(file.read_bytes()).decode()}"
            return Sheet(uri, COLUMNS, THUMB, COLUMNS * THUMB)
    return None


def _chart(places: Any, legend: Sequence[Key], members: Sequence[Any]) -> Figure:
    """A trace per entry of the legend, and a last one, empty, that marks a chosen image."""
    places = places / max(float(np.abs(places).max()), 1e-12)  # the scale means nothing, short numbers do
    traces = [
        traced(key.name, key.tone)
        | {
            "mode": "markers",
            "x": places[inside, 0].round(3).tolist(),
            "y": places[inside, 1].round(3).tolist(),
            "customdata": inside.tolist(),
            "marker": {"size": 5, "symbol": key.symbol},
            "hovertemplate": f"{in_plotly(key.name)}<extra></extra>",
        }
        for key, inside in zip(legend, members, strict=True)
    ]
    ring = {"size": 15, "symbol": "circle-open", "line": {"width": 2}}
    chosen = {"type": "scatter", "mode": "markers", "name": "chosen", "x": [], "y": [], "marker": ring}
    axis = {
        "showticklabels": False,
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "range": [-1.08, 1.08],
    }
    layout = {
        "height": 340,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": axis,
        "yaxis": axis,
        "hovermode": "closest",
    }
    return {
        "data": [*traces, chosen | {"hoverinfo": "skip", "meta": {"label": "", "tone": "ink"}}],
        "layout": layout,
    }
