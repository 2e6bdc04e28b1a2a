"""Error messages that say what was given, what is allowed and what to write instead."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_SHOWN = 10
_LONGEST = 100  # characters of a name that are compared
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def listed(names: Iterable[str]) -> str:
    """The first ten of `names` in a line, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def unknown(kind: str, given: str, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is none of `allowed`, with the nearest one."""
    names = sorted(allowed)
    near = get_close_matches(given[:_LONGEST], names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {shortened(given)}{hint} Allowed: {', '.join(names)}")


def shortened(value: object) -> str:
    """A value as an error shows it, however large it is."""
    return _SHORT.repr(value)


def explain(error: ValidationError, model: type[BaseModel], path: str = "") -> ValueError:
    """One line per problem of a pydantic error: field path, what is wrong, value given, nearest field."""
    lines = []
    for problem in error.errors(include_url=False):
        loc = [part for part in problem["loc"] if "[" not in str(part)]  # pydantic's names of union members
        where = ".".join(str(part) for part in (path, *loc) if part != "")
        words = problem["msg"].removeprefix("Value error, ")
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(str(unknown("option", where, _siblings(model, loc, path))))
        elif where:
            lines.append(f"{where}: {words} (given: {shortened(problem['input'])})")
        else:
            lines.append(words)
    return ValueError("\n".join(lines))


def _siblings(model: type[BaseModel], loc: list[int | str], path: str) -> list[str]:
    """The fields beside the one at `loc`."""
    fields, prefix = _fields(model) or {}, [path] if path else list[str]()
    for part in loc[:-1]:
        prefix.append(str(part))
        if part in fields:
            fields = _fields(fields[part].annotation) or {}
    return [".".join([*prefix, str(name)]) for name in fields]


def _fields(annotation: Any) -> dict[int | str, Any] | None:
    """The fields of a model or dataclass, or of the first one in a union or list of them."""
    own = getattr(annotation, "model_fields", None) or getattr(annotation, "__pydantic_fields__", None)
    inner = (_fields(part) for part in get_args(annotation))
    return own or next(filter(None, inner), None)
