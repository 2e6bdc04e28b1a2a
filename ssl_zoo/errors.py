"""Error messages that say what was given, what is allowed and what to write instead."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

_SHOWN = 10


def listed(names: Iterable[str]) -> str:
    """The first ten of `names` in a line, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def unknown(kind: str, given: str, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is none of `allowed`, with the nearest one."""
    names = sorted(allowed)
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {given!r}{hint} Allowed: {', '.join(names)}")


def explain(error: ValidationError, model: type[BaseModel], path: str = "") -> ValueError:
    """One line per problem of a pydantic error: field path, what is wrong, value given, nearest field."""
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in (path, *problem["loc"]) if part != "")
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(str(unknown("option", where, _siblings(model, problem["loc"], path))))
        else:
            lines.append(f"{where or model.__name__}: {problem['msg']} (given: {problem['input']!r})")
    return ValueError("\n".join(lines))


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...], path: str) -> list[str]:
    fields = model.model_fields
    prefix = [path] if path else []
    for part in loc[:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        nested = getattr(annotation, "model_fields", None) or getattr(annotation, "__pydantic_fields__", None)
        if nested is None:
            break
        fields, prefix = nested, [*prefix, str(part)]
    return [".".join([*prefix, name]) for name in fields]
