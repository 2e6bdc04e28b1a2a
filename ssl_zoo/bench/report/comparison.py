"""Who is ahead: every method against one reference method, on the primary metric, over paired seeds."""

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import Path
from shlex import join
from typing import Any, NamedTuple

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report.noise import evaluation_noise
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import (
    SEEDS_TO_RANK,
    TITLES,
    Summary,
    in_points,
    points_over,
    primary_of,
    scored,
)
from ssl_zoo.bench.report.words import VIEWS, p_value, percent, points, times, tuned
from ssl_zoo.bench.statistics import Interval, holm, order_holds, paired_interval, paired_p

_ALPHA = 0.05
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
_EQUAL = {"epochs": "images", "images": "images", "steps": "images", "flops": "FLOPs", "seconds": "seconds"}


class Comparison(NamedTuple):
    """A method against the reference method over the `seeds` that both finished, three or more.

    `difference` is in points, positive where the method is above. `p` is adjusted over all methods (Holm).
    `order_holds` is the chance that a new seed orders the two alike, None below five seeds.
    """

    method: Summary
    reference: Summary
    seeds: int
    difference: Interval
    p: float
    order_holds: float | None

    @property
    def is_decided(self) -> bool:
        """Whether one of the two is ahead: p is below .05, and then the interval leaves out zero as well."""
        return self.p < _ALPHA

    @property
    def in_order(self) -> tuple[Summary, Summary]:
        """The two, the better first."""
        above = self.difference.mean >= 0
        return (self.method, self.reference) if above else (self.reference, self.method)


class Finding(NamedTuple):
    """Who is ahead in one `line`, how sure that is in `basis`, and what stands around it in `context`."""

    line: str
    basis: str = ""
    context: str = ""

    @property
    def text(self) -> str:
        """Everything that stands behind the line."""
        return " ".join(part for part in (self.basis, self.context) if part)


def compare(bench: Mapping[str, Any], summaries: Sequence[Summary]) -> list[Comparison]:
    """Every trained method against the reference, where both share three seeds; the best first.

    The reference is the method that `bench` names or else its first one, of those that have a score.
    """
    methods = scored(summaries)
    if not methods:
        return []
    reference = _reference(bench, methods)
    zero = in_points(reference.by_seed)
    others = [item for item in methods if item is not reference and _shared(item, reference) >= SEEDS_TO_RANK]
    scores = [in_points(item.by_seed) for item in others]
    adjusted = holm([paired_p(own, zero) for own in scores])
    pairs = [
        Comparison(item, reference, _shared(item, reference), difference, p, order_holds(own, zero))
        for item, own, p in zip(others, scores, adjusted, strict=True)
        if (difference := paired_interval(own, zero))
    ]
    return sorted(pairs, key=lambda pair: -pair.difference.mean)


def _reference(bench: Mapping[str, Any], methods: Sequence[Summary]) -> Summary:
    named = [bench.get("reference"), *(bench.get("methods") or [])]
    return next((item for label in named for item in methods if item.label == label), methods[0])


def _shared(first: Summary, second: Summary) -> int:
    return len(first.by_seed.keys() & second.by_seed.keys())


def finding(bench: Mapping[str, Any], summaries: Sequence[Summary], folder: Path | None = None) -> Finding:
    """Who is ahead of the reference method, or why nobody can be named.

    `folder` is the bench's: it stands in the command that adds seeds, and the predictions of its cells tell
    the evaluation noise.
    """
    methods = scored(summaries)
    if not methods:
        return _unscored(summaries)
    reference, primary = _reference(bench, methods), primary_of(bench)
    others = [item for item in methods if item is not reference]
    metric = TITLES.get(primary, primary)
    how = tuned(bench)
    around = [how[:1].upper() + how[1:], _gains(methods, metric), *_against(summaries, methods)]
    context = " ".join(f"{part}." for part in around if part)
    noise = evaluation_noise(Sources(folder, bench), primary, reference, others) if folder else ""
    if not others:
        return Finding(f"only {reference.label} has a score: there is nothing to rank", noise, context)
    pairs, more = compare(bench, summaries), _more_seeds(bench, folder)
    if not pairs:
        return Finding(f"{_too_few(reference, others)} ({more})", noise, context)
    clauses = [_ahead(pair, _unit(bench)) for pair in pairs if pair.is_decided]
    if undecided := [pair for pair in pairs if not pair.is_decided]:
        clauses.append(_undecided(undecided))
    short = [item.label for item in others if all(item is not pair.method for pair in pairs)]
    if short:
        clauses.append(f"too few seeds to rank {', '.join(short)} ({more})")
    terms = filter(None, (metric, VIEWS.get(bench.get("views", ""))))
    line = f"{_equal(bench, methods)}{'; '.join(clauses)} ({', '.join(terms)})"
    basis = [_tests(pairs), _same_in_every_seed(pairs), _chances(pairs), _seconds(pairs, bench), noise]
    return Finding(line, " ".join(part for part in basis if part), context)


def _ahead(pair: Comparison, unit: str) -> str:
    """Who of two is above the other, and at what cost."""
    first, second = (item.label for item in pair.in_order)
    size = f"{abs(pair.difference.mean):.1f} {_PLUS_MINUS} {pair.difference.half_width or 0:.1f} points"
    return f"{first} is {size} above {second} ({p_value(pair.p)}, {pair.seeds} seeds){_cost(pair, unit)}"


def _undecided(pairs: Sequence[Comparison]) -> str:
    """Whom the reference cannot be told from: the intervals hold zero, or would but for Holm."""
    sizes = ", ".join(
        f"{pair.method.label} ({points(pair.difference.mean)} {_PLUS_MINUS} "
        f"{pair.difference.half_width or 0:.1f} points, {p_value(pair.p)}, {pair.seeds} seeds)"
        for pair in pairs
    )
    if not all(low <= 0 <= high for low, high in (pair.difference.ends for pair in pairs)):
        why = "which may be chance among so many methods"
    else:
        why = "an interval that holds zero" if len(pairs) == 1 else "intervals that hold zero"
    return f"no winner between {pairs[0].reference.label} and {sizes}: {why}"


def _equal(bench: Mapping[str, Any], methods: Sequence[Summary]) -> str:
    """What the budget made equal; empty for encoders that were made elsewhere."""
    if _unit(bench) not in _EQUAL:
        return ""
    ended = any("collapsed" in item.status for item in methods)
    return f"At equal {_EQUAL[_unit(bench)]}{', but for runs that a collapse ended,' if ended else ''} "


def _unit(bench: Mapping[str, Any]) -> str:
    return next(iter(bench.get("budget") or {}), "")


def _cost(pair: Comparison, unit: str) -> str:
    name, title = ("train_seconds", "seconds") if unit == "flops" else ("train_flops", "FLOPs")
    ratio = _ratio(pair, name)
    return f" at {times(ratio)} the {title}" if ratio else ""


def _ratio(pair: Comparison, cost: str) -> float | None:
    """What the better of the two cost, as a multiple of the other."""
    first, second = (item.costs.get(cost) for item in pair.in_order)
    return first / second if first and second else None


def _tests(pairs: Sequence[Comparison]) -> str:
    adjusted = f", p adjusted over {len(pairs)} methods (Holm)" if len(pairs) > 1 else ""
    return f"Seeds are paired: 95 % t intervals and t tests of the differences{adjusted}."


def _same_in_every_seed(pairs: Sequence[Comparison]) -> str:
    same = ", ".join(pair.method.label for pair in pairs if pair.difference.half_width == 0)
    return f"The same difference in every seed to {same}: check that seeds matter." if same else ""


def _chances(pairs: Sequence[Comparison]) -> str:
    chances = [
        f"{' above '.join(item.label for item in pair.in_order)} {percent(pair.order_holds)}"
        for pair in pairs
        if pair.order_holds is not None
    ]
    return f"The chance that the order holds on a new seed: {', '.join(chances)}." if chances else ""


def _seconds(pairs: Sequence[Comparison], bench: Mapping[str, Any]) -> str:
    ratios = [
        f"{pair.in_order[0].label} {times(ratio)} {pair.in_order[1].label}"
        for pair in pairs
        if _unit(bench) != "flops" and (ratio := _ratio(pair, "train_seconds"))
    ]
    return f"In training seconds: {', '.join(ratios)}." if ratios else ""


def _too_few(reference: Summary, others: Sequence[Summary]) -> str:
    shared = max(_shared(item, reference) for item in others)
    most = max(len(item.by_seed) for item in (reference, *others))
    if most >= SEEDS_TO_RANK:
        return f"only {shared} of {most} seeds can be paired with {reference.label}: too few seeds to rank"
    return f"{('no common seed', 'one seed', 'two seeds')[shared]}: too few seeds to rank"


def _more_seeds(bench: Mapping[str, Any], folder: Path | None) -> str:
    """The command that adds seeds where the encoders were trained, whose finished cells are kept."""
    here = folder or Path("FOLDER")
    merged = [Path(normpath(here / run)) for run in bench.get("runs") or []]
    trained = [Path(bench["evaluation_of"])] if bench.get("evaluation_of") else merged or [here]
    seeds = str(max(SEEDS_TO_RANK, len(bench.get("seeds") or [])))
    plugins = [word for plugin in bench.get("plugins") or [] for word in ("--plugin", plugin)]
    words = [
        ["ssl-zoo", "bench", "--config", f"{home}/bench.yaml", "--seeds", seeds, "--out", f"{home}", *plugins]
        for home in trained
    ]
    again = "" if trained == [here] else f", then {'merge' if merged else 'evaluate'} again"
    return f"to add seeds and keep finished cells: {' && '.join(map(join, words))}{again}"


def _unscored(summaries: Sequence[Summary]) -> Finding:
    trained = [item for item in summaries if not item.is_reference]
    if not any(word in item.status for item in trained for word in FINISHED):
        return Finding("no method finished: there is nothing to rank")
    return Finding(
        "without labels no method is ranked; label about 100 images and run: "
        "ssl-zoo eval --encoder RUN --data SPEC --labels FILE.csv",
        context="What is measured without labels tells a collapse, not which features are better.",
    )


def _gains(methods: Sequence[Summary], metric: str) -> str:
    gains = {item.label: item.gain for item in methods if item.gain}
    if not gains:
        return ""
    if all(gain.mean <= 0 for gain in gains.values()):
        opening = f"No method is above the untrained backbone on {metric}"
    else:
        opening = f"Over the untrained backbone on {metric}"
    return f"{opening}: {', '.join(f'{label} {points(gain.mean)} points' for label, gain in gains.items())}"


def _against(summaries: Sequence[Summary], methods: Sequence[Summary]) -> list[str]:
    """How the methods stand to the references that were trained elsewhere, a sentence each."""
    return [
        f"Over {other.label}: "
        f"{', '.join(f'{item.label} {points(points_over(item, other))}' for item in methods)} points"
        for other in summaries
        if other.is_reference and not other.is_baseline and other.by_seed
    ]
