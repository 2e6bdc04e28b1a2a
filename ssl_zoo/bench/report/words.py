"""Numbers as people read them."""

from collections.abc import Mapping
from math import isfinite, log
from typing import Any

VIEWS = {"recipe": "each method's own views", "shared": "the same views for all"}


def is_number(value: Any) -> bool:
    """Whether this is a finite number (null, NaN and booleans are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def quantity(value: float) -> str:
    """A whole number in full up to a billion, anything else with four significant digits."""
    return count(value) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def points(value: float) -> str:
    """A difference in points with its sign and one decimal; what rounds to nothing is +0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def scaled(value: float, unit: str, base: int = 1000) -> str:
    """Four significant digits with the SI prefix (base 1000) or the binary one (base 1024)."""
    power = min(int(log(abs(value), base)), 6) if abs(value) >= 1 else 0
    prefix = ("", "k", "M", "G", "T", "P", "E")[power]
    return f"{value / base**power:.4g} {prefix}{'i' if base == 1024 and prefix else ''}{unit}"


def times(ratio: float) -> str:
    """A cost as a multiple: 1.9x, or two digits of what is below one, as 0.53x."""
    return f"{ratio:.1f}x" if ratio >= 0.95 else f"{ratio:.2g}x"


def percent(chance: float) -> str:
    """A chance in whole percent, none of them certain."""
    return "> 99 %" if chance > 0.99 else f"{100 * chance:.0f} %"


def p_value(p: float) -> str:
    """The p of a test with two digits and no leading zero: p = .012, p < .001."""
    return "p < .001" if p < 0.001 else f"p = {f'{p:.2g}'.removeprefix('0')}"


def budget(fields: Mapping[str, Any]) -> str:
    """The budget in words: {"epochs": 3} -> "3 epochs", {"flops": 5e15} -> "5 PFLOP"."""
    return ", ".join(
        scaled(value, "FLOP")
        if name == "flops"
        else f"{quantity(value)} {name.removesuffix('s') if value == 1 else name}"
        for name, value in fields.items()
        if is_number(value)
    )


def sentence(bench: Mapping[str, Any]) -> str:
    """What was compared under which terms, on one line."""
    size, seeds = bench.get("image_size"), bench.get("seeds") or []
    terms = [
        f"{', '.join(bench.get('methods') or ['no method'])} on {bench.get('dataset') or 'unknown images'}",
        bench.get("eval_data") and f"evaluated on {bench['eval_data']}",
        bench.get("backbone"),
        size and f"{size} px",
        budget(bench.get("budget") or {}),
        VIEWS.get(bench.get("views", "")),
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}",
        tuned(bench),
    ]
    return " \N{MIDDLE DOT} ".join(str(term) for term in terms if term)


def tuned(bench: Mapping[str, Any]) -> str:
    """How the methods were tuned for this comparison; empty for encoders that were made elsewhere."""
    trials = (bench.get("tuning") or {}).get("trials", 0)
    if trials:
        return f"{count(trials)} tuning trial{'s' * (trials != 1)} per method"
    given = ", ".join(f"{label} ({', '.join(names)})" for label, names in (bench.get("given") or {}).items())
    own = f" but for {given}" if given else ""
    return f"defaults{own}, 0 tuning trials" if bench.get("budget") else ""


def reason(error: str | None, status: str) -> str:
    """Why a run did not finish, on one line: of a traceback the closing line, else the whole message."""
    if not error:
        same_again = "run the same command again to finish it"
        return same_again if status == "stopped" else "no reason was recorded"
    lines = error.split("\n") if not error.startswith("Traceback") else error.strip().split("\n")[-1:]
    return " ".join(" ".join(lines).split())
