"""Code of other people, loaded because its user named it."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path


def anywhere(name: str) -> str:
    """The plug-in as it is named from any folder: a `.py` file with its absolute path."""
    return str(Path(name).expanduser().absolute()) if name.endswith(".py") else name


def check_trusted(named: Iterable[str], given: Iterable[str], where: str) -> None:
    """Raises ValueError for a plug-in that the file `where` names and the command does not."""
    trusted = {anywhere(name) for name in given}
    for name in named:
        if anywhere(name) not in trusted:
            raise ValueError(
                f"plugins: {where} names {name!r}, which is code; if you trust it, add --plugin {name}"
            )


def import_plugin(name: str) -> None:
    """Import a module, or a `.py` file, that registers methods.

    Raises ValueError if it, or a module that it imports, is not there or its name is taken, ImportError
    caused by its own error if it is broken.
    """
    path = Path(name)
    module = path.stem if path.suffix == ".py" else name
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)  # a built-in module has none
        if path.suffix == ".py" and (file is None or Path(file).resolve() != path.resolve()):
            raise ValueError(
                f"plugin {name!r}: a module {module!r} is loaded already, from {file}; rename yours"
            )
        return
    if path.suffix == ".py" and not path.is_file():
        raise ValueError(f"plugin {name!r}: no such file; give an importable module or a .py file")
    try:
        if path.suffix == ".py":
            _import_file(module, path)
        else:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = "install it, or give an importable module or a .py file"
        raise ValueError(f"plugin {name!r}: {error}; {hint}") from error
    except Exception as error:
        raise ImportError(f"plugin {name!r} is broken: {type(error).__name__}: {error}") from error


def _import_file(module: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
