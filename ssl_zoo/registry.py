"""The registry of methods: in-tree folders and the entry points `ssl_zoo.methods`, loaded when asked for."""

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

import ssl_zoo.methods
from ssl_zoo.errors import explain, unknown
from ssl_zoo.method import Method
from ssl_zoo.nets import Backbone

M = TypeVar("M", bound=type[Method])

_REGISTERED: dict[str, type[Method]] = {}


class Listing(NamedTuple):
    """A known method: its `name`, one-line `summary` and `owner`, the module that provides it."""

    name: str
    summary: str
    owner: str


def register_method(name: str) -> Callable[[M], M]:
    """Make a method class available under `name`; raises ValueError if another class owns the name."""

    def register(cls: M) -> M:
        owner = _owner(name)
        if owner is not None and owner != _identity(cls) and not _identity(cls).startswith(f"{owner}."):
            raise ValueError(
                f"method {name!r} belongs to {owner}; register {_identity(cls)} under another name"
            )
        cls.name = name
        _REGISTERED[name] = cls
        return cls

    return register


def method_class(name: str) -> type[Method]:
    """The class registered under `name`; raises ValueError with the nearest name if there is none."""
    if name not in _REGISTERED:
        if name in _in_tree():
            importlib.import_module(_in_tree()[name])
        elif name in _entry_points():
            register_method(name)(_entry_points()[name].load())
        else:
            raise unknown("method", name, list_methods())
    return _REGISTERED[name]


def create_method(name: str, backbone: Backbone, **options: Any) -> Method:
    """A method over `backbone`, configured by `options` (fields of its Config).

    Raises ValueError for an unknown name or option, TypeError for a backbone that the method cannot use.
    """
    cls = method_class(name)
    try:
        config = cls.Config(**options)
    except ValidationError as error:
        raise explain(error, cls.Config, name) from None
    if not isinstance(backbone, cls.backbone_type):
        raise TypeError(
            f"{name} needs a {cls.backbone_type.__name__}, got {type(backbone).__name__}; "
            "give it one that has tokens, such as vit_tiny"
        )
    return cls(backbone, config)


def list_methods() -> list[str]:
    """The names of all methods: in-tree, installed and registered by hand; imports none of them."""
    return sorted({*_in_tree(), *_entry_points(), *_REGISTERED})


def describe_methods() -> list[Listing]:
    """Name, summary and owner of every method, from source text and metadata; imports none of them."""
    return sorted(_descriptions())


def check_methods() -> dict[str, str]:
    """Import every method: name -> "" if it loads, else what is broken."""
    result = {}
    for name in list_methods():
        try:
            method_class(name)
            result[name] = ""
        except Exception as error:  # a broken plug-in must not hide the others
            result[name] = f"{type(error).__name__}: {error}"
    return result


def _descriptions() -> Iterator[Listing]:
    in_tree, installed = _in_tree(), _entry_points()
    for name, module in in_tree.items():
        folder = Path(next(iter(ssl_zoo.methods.__path__)))
        doc = ast.get_docstring(ast.parse((folder / name / "__init__.py").read_text())) or ""
        yield Listing(name, doc.partition("\n")[0], module)
    for name, point in installed.items():
        summary = point.dist.metadata["Summary"] if point.dist else None
        yield Listing(name, summary or "", point.value)
    for name, cls in _REGISTERED.items():
        if name not in in_tree and name not in installed:
            yield Listing(name, (cls.__doc__ or "").partition("\n")[0], _identity(cls))


def _in_tree() -> dict[str, str]:
    package = ssl_zoo.methods
    return {m.name: f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)}


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="ssl_zoo.methods")}


def _owner(name: str) -> str | None:
    if name in _in_tree():
        return _in_tree()[name]
    if name in _entry_points():
        return _entry_points()[name].value.replace(":", ".")
    return _identity(_REGISTERED[name]) if name in _REGISTERED else None


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
