"""The charts as plain Plotly JSON; the page paints them with its own colours, by the tone in `meta`."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from ssl_zoo.bench.report.summaries import BASELINE, TITLES, Summary
from ssl_zoo.bench.report.words import count, is_number, quantity

Figure = dict[str, Any]
Logged = list[dict[str, Any]]

POINTS = 400  # of one curve; fewer where there are many
_MOST_POINTS = 30_000  # of all curves together
TONES = 7  # the colours of Okabe & Ito but yellow, which white swallows
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px,1px,2px")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon")
_NOT_METRICS = {"step", "images_seen", "seconds"}


def tones(labels: Sequence[str]) -> dict[str, str]:
    """A colour per label, the same in every chart: "0" to "6", and "baseline"."""
    trained = [label for label in dict.fromkeys(labels) if label != BASELINE]
    return {BASELINE: "baseline"} | {label: str(index % TONES) for index, label in enumerate(trained)}


def dash(tone: str) -> str:
    """The dashes of a tone's lines, which tell them apart without colour."""
    return _DASHES[int(tone)] if tone.isdigit() else "solid"


def symbol(place: int) -> str:
    """The marker of the tone, or of another series, with this number."""
    return _SYMBOLS[place % len(_SYMBOLS)]


class Key(NamedTuple):
    """An entry of a legend."""

    name: str
    tone: str
    symbol: str


def key(label: str, tone: str) -> Key:
    """The entry of a label, with the marker of its tone."""
    return Key(label, tone, symbol(int(tone) if tone.isdigit() else 0))


def traced(label: str, tone: str) -> Figure:
    """What every trace of a label has: the page colours it by its tone and hides it by its label."""
    return {"type": "scatter", "name": in_plotly(label), "meta": {"label": label, "tone": tone}}


def score_figure(summaries: Sequence[Summary], metric: str, tone: Mapping[str, str]) -> Figure:
    """Dots per seed, a diamond with its interval per label, and a dashed line at the untrained backbone."""
    scored = [item for item in summaries if metric in item.scores][::-1]  # Plotly counts from below
    traces = [
        trace for place, item in enumerate(scored) for trace in _dots(item, metric, place, tone[item.label])
    ]
    baseline = [100 * item.scores[metric].mean for item in scored if item.is_baseline]
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dash", "width": 1}}
    layout = {
        "height": 90 + 46 * len(scored),
        "margin": {"l": 10, "r": 16, "t": 8, "b": 52},
        "xaxis": {"title": title(f"{TITLES.get(metric, metric)}, %"), "zeroline": False},
        "yaxis": {
            "tickvals": list(range(len(scored))),
            "ticktext": [_short(item.label) for item in scored],
            "range": [-0.6, len(scored) - 0.4],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
        "shapes": [line | {"x0": value, "x1": value} for value in baseline],
    }
    return {"data": traces, "layout": layout}


def _dots(item: Summary, metric: str, place: int, tone: str) -> list[Figure]:
    mean, half_width = item.scores[metric]
    common = traced(item.label, tone) | {"mode": "markers"}
    seeds = common | {
        "x": [100 * score for score in item.by_seed.values()],
        "y": [place - (0 if half_width is None else 0.24)] * len(item.by_seed),
        "text": [f"seed {seed}" for seed in item.by_seed],
        "marker": {"symbol": "circle-open", "size": 8, "line": {"width": 1.5}},
        "hovertemplate": "%{text}: %{x:.1f} %<extra></extra>",
    }
    if half_width is None:
        return [seeds | {"marker": {"symbol": "circle", "size": 11}}]
    center = common | {
        "x": [100 * mean],
        "y": [place],
        "marker": {"symbol": "diamond", "size": 11},
        "error_x": {"type": "data", "array": [100 * half_width], "thickness": 1.5, "width": 5},
        "hovertemplate": f"mean %{{x:.1f}} \N{PLUS-MINUS SIGN} {100 * half_width:.1f} %<extra></extra>",
    }
    return [center, seeds]


def metric_names(logs: Sequence[Logged]) -> list[str]:
    """The names of what was logged: the loss first, then as they appear."""
    names = {name: None for log in logs for step in log for name, value in step.items() if is_number(value)}
    shown = [name for name in names if name not in _NOT_METRICS and not name.startswith("curve_")]
    return sorted(shown, key=lambda name: name != "loss")


def points_each(curves: int) -> int:
    """How many points each of so many curves may have."""
    return min(POINTS, max(_MOST_POINTS // max(curves, 1), 50))


def curve_figure(logs: Mapping[int, Logged], metric: str, tone: str, points: int = POINTS) -> Figure | None:
    """One method's metric against images seen: a thin line per seed, their mean thick; None if not logged."""
    curves = {seed: curve for seed, log in logs.items() if (curve := _curve(log, metric, points))}
    if not curves:
        return None
    lonely, mean = len(curves) == 1, _mean(curves)
    traces = [_line(curve, traced(f"seed {seed}", tone), faint=not lonely) for seed, curve in curves.items()]
    if mean and not lonely:
        traces.append(_line(mean, traced("mean", tone), faint=False))
    return {"data": traces, "layout": _CURVES, "caption": _in_words(curves, metric)}


def overlay_figure(
    logs: Mapping[str, Mapping[int, Logged]], metric: str, tone: Mapping[str, str], ceiling: str | None = None
) -> Figure | None:
    """The metric of every label in one chart: a line per label, the mean of its seeds where they end alike.

    The dashed line is the metric `ceiling`, the longest where labels differ. None if nobody logged `metric`.
    """
    lines, words, limits = [], [], []
    for label, seeds in logs.items():
        curves = {seed: curve for seed, log in seeds.items() if (curve := _curve(log, metric))}
        if curves:
            mean, common = _mean(curves), traced(label, tone[label])
            drawn = [_line(curve, common, faint=False) for curve in ([mean] if mean else curves.values())]
            lines += [line | {"line": line["line"] | {"dash": dash(tone[label])}} for line in drawn]
            words.append(f"{label} {_in_words(curves, metric).removeprefix(f'{metric}: ')}")
        limits += [curve for log in seeds.values() if ceiling and (curve := _curve(log, ceiling))]
    if not lines:
        return None
    if limits and ceiling:
        limit = _line(max(limits, key=len), traced(ceiling, "baseline"), faint=True)
        lines.append(limit | {"line": {"width": 1, "dash": "dash"}})
    return {"data": lines, "layout": _CURVES, "caption": f"{metric}: {'; '.join(words)}"}


def _mean(curves: Mapping[int, Mapping[int, float]]) -> dict[int, float] | None:
    """The mean over seeds, None where they were logged at different steps."""
    grids = {tuple(curve) for curve in curves.values()}
    if len(grids) > 1:
        return None
    return {x: sum(curve[x] for curve in curves.values()) / len(curves) for x in grids.pop()}


def _curve(log: Logged, metric: str, most: int = POINTS) -> dict[int, float]:
    points = [
        (step["images_seen"], float(f"{step[metric]:.5g}"))
        for step in log
        if is_number(step.get("images_seen")) and is_number(step.get(metric))
    ]
    stride = -(-len(points) // most)
    return dict(points[::stride] + points[-1:]) if points else {}


def _line(curve: Mapping[int, float], common: Figure, faint: bool) -> Figure:
    return common | {
        "mode": "lines" if len(curve) > 1 else "markers",
        "x": list(curve),
        "y": list(curve.values()),
        "opacity": 0.45 if faint else 1,
        "line": {"width": 1 if faint else 2},
        "hovertemplate": f"{common['name']}, %{{x:,}} images: %{{y:.4g}}<extra></extra>",
    }


def _in_words(curves: Mapping[int, Mapping[int, float]], metric: str) -> str:
    images = max(max(curve) for curve in curves.values())
    complete = [list(curve.values()) for curve in curves.values() if max(curve) == images]
    first, last = (sum(values[end] for values in complete) / len(complete) for end in (0, -1))
    seeds = f", mean of {len(complete)} seeds" if len(complete) > 1 else ""
    return f"{metric}: {quantity(first)} at first, {quantity(last)} after {count(images)} images{seeds}"


def title(text: str) -> Figure:
    """The title of an axis."""
    return {"text": in_plotly(text), "standoff": 10, "font": {"size": 12}}


def in_plotly(text: str) -> str:
    """Text that Plotly takes literally: it reads a subset of HTML."""
    return escape(text, quote=False)


def _short(label: str) -> str:
    return in_plotly(label if len(label) <= 22 else f"{label[:21]}\N{HORIZONTAL ELLIPSIS}")


_CURVES: Figure = {
    "height": 230,
    "margin": {"l": 48, "r": 12, "t": 8, "b": 52},
    "xaxis": {"title": title("images seen"), "tickformat": "~s", "nticks": 5, "zeroline": False},
    "yaxis": {"tickformat": "~g", "nticks": 5, "zeroline": False},
}
