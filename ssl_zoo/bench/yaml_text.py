"""YAML as a configuration may use it: plain values, every key once, of bounded size."""

from typing import Any, ClassVar

import yaml
from yaml import Node
from yaml.constructor import ConstructorError

MOST_BYTES = 2**20
MOST_VALUES = 10_000
MOST_LEVELS = 32

_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class _Loader(yaml.SafeLoader):
    """Dates stay text, which is all that a configuration could do with them."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse(text: str, place: str) -> Any:
    """What a YAML text holds.

    Raises yaml.MarkedYAMLError or yaml.reader.ReaderError for what is no YAML, and ValueError, with `place`
    and the line, for a key that is given twice, a tag that is no plain value, a value that contains itself,
    more than MOST_BYTES, MOST_LEVELS or, with every alias written out, MOST_VALUES.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{place}: more than {MOST_BYTES:,} bytes; give a bench's configuration")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {}, ())
        return loader.construct_document(node)
    except ConstructorError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{place}{where}: {error.problem}") from None
    except RecursionError:
        raise ValueError(f"{place}: values lie in each other more than {MOST_LEVELS} deep") from None
    except (ValueError, LookupError) as error:  # `!!int x` and the like
        raise ValueError(f"{place}: a value is not what its tag says ({error}); leave tags out") from None


def one_line(error: yaml.YAMLError) -> str:
    """Line and problem of an error, without the excerpt."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        words = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {mark.line + 1}: {words}" if mark else words
    return " ".join(str(error).split())


def _check(node: Node, sizes: dict[Node, int], above: tuple[Node, ...]) -> int:
    """How many values a node stands for, each alias counted as what it repeats."""
    if node in sizes:
        return sizes[node]
    if node in above:
        raise _refused(node, "a value contains itself; write it out")
    if len(above) >= MOST_LEVELS:
        raise _refused(node, f"values lie in each other more than {MOST_LEVELS} deep")
    if node.tag not in [f"tag:yaml.org,2002:{name}" for name in _PLAIN]:
        raise _refused(node, f"the tag {node.tag} is not allowed; write plain values")
    inner: list[Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
        _check_keys([key for key, _ in node.value])
    size = 1 + sum(_check(part, sizes, (*above, node)) for part in inner)
    if size > MOST_VALUES:
        raise _refused(node, f"more than {MOST_VALUES:,} values, with every alias written out; write fewer")
    sizes[node] = size
    return size


def _check_keys(keys: list[Node]) -> None:
    lines: dict[str, int] = {}
    for key in keys:
        if isinstance(key, yaml.ScalarNode):
            if key.value in lines:
                raise _refused(key, f"{key.value!r} is given before, in line {lines[key.value]}; keep one")
            lines[key.value] = key.start_mark.line + 1


def _refused(node: Node, problem: str) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)
