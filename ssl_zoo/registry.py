"""The registry of methods: in-tree folders and the entry points `ssl_zoo.methods`, loaded when asked for."""

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

import ssl_zoo.methods
from ssl_zoo.errors import explain, unknown

if TYPE_CHECKING:  # listing methods must not wait for torch
    from ssl_zoo.method import Method
    from ssl_zoo.nets import Backbone

M = TypeVar("M", bound="type[Method]")

_REGISTERED: "dict[str, type[Method]]" = {}


class Listing(NamedTuple):
    """A known method: its `name`, one-line `summary` and `owner`, the module that provides it."""

    name: str
    summary: str
    owner: str


def register_method(name: str) -> Callable[[M], M]:
    """Make a method class available under `name`; raises ValueError if another class owns the name."""

    def register(cls: M) -> M:
        owner = _other_owner(name, cls)
        if owner is not None:
            raise ValueError(
                f"method {name!r} belongs to {owner}; register {_identity(cls)} under another name"
            )
        cls.name = name
        _REGISTERED[name] = cls
        return cls

    return register


def method_class(name: str) -> "type[Method]":
    """The class registered under `name`.

    Raises ValueError with the nearest name if there is none and with the owners if there are several,
    ImportError for a plug-in that does not load, caused by the plug-in's own error.
    """
    module, points = _in_tree().get(name), _entry_points(name)
    owners = [*([module] if module else []), *(point.value for point in points)]
    if len(owners) > 1:
        raise ValueError(f"method {name!r} comes from {' and '.join(owners)}; uninstall all but one")
    if name not in _REGISTERED:
        if not owners:
            raise unknown("method", name, list_methods())
        if module:
            importlib.import_module(module)
        else:
            cls = _load(points[0])
            cls.name = name
            _REGISTERED[name] = cls
    return _REGISTERED[name]


def create_method(name: str, backbone: "Backbone", **options: Any) -> "Method":
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
    return sorted({*_in_tree(), *(point.name for point in _entry_points()), *_REGISTERED})


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
            own = error.__cause__ or error
            result[name] = f"{type(own).__name__}: {own}"
    return result


def _descriptions() -> Iterator[Listing]:
    folder = Path(next(iter(ssl_zoo.methods.__path__)))
    for name, module in _in_tree().items():
        doc = ast.get_docstring(ast.parse((folder / name / "__init__.py").read_text())) or ""
        yield Listing(name, doc.partition("\n")[0], module)
    for point in _entry_points():
        summary = point.dist.metadata["Summary"] if point.dist else None
        yield Listing(point.name, summary or "", point.value)
    for name, cls in _REGISTERED.items():
        if name not in _in_tree() and not _entry_points(name):
            yield Listing(name, (cls.__doc__ or "").partition("\n")[0], _identity(cls))


def _in_tree() -> dict[str, str]:
    package = ssl_zoo.methods
    return {m.name: f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)}


def _entry_points(name: str | None = None) -> list[EntryPoint]:
    return [point for point in entry_points(group="ssl_zoo.methods") if name in (None, point.name)]


def _load(point: EntryPoint) -> "type[Method]":
    from ssl_zoo.method import Method

    try:
        cls = point.load()
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise TypeError(f"entry point {point.name} = {point.value} is no Method class; point it at one")
    except Exception as error:
        package = point.dist.name if point.dist else point.module
        raise ImportError(
            f"method {point.name!r} of the installed package {package} is broken: "
            f"{type(error).__name__}: {error}; repair it or `pip uninstall {package}`"
        ) from error
    return cls


def _other_owner(name: str, cls: "type[Method]") -> str | None:
    """Who owns `name` if `cls` may not have it: another class, in-tree folder or installed package."""
    registered, module, points = _REGISTERED.get(name), _in_tree().get(name), _entry_points(name)
    if registered is not None:
        return None if _identity(registered) == _identity(cls) else _identity(registered)
    if module is not None:
        return None if f"{cls.__module__}.".startswith(f"{module}.") else module
    packages = {point.module.partition(".")[0] for point in points}
    return points[0].value if points and cls.__module__.partition(".")[0] not in packages else None


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
