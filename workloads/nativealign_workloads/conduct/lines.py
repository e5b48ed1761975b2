"""YAML with line numbers for error messages. Called by the loader of the code of conduct."""

import difflib
from typing import Any

import yaml

from nativealign_workloads.errors import UsageError

Path = tuple[Any, ...]


class LineIndex:
    """Line of every field of a YAML document; an unknown path has the line of its nearest known parent."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines

    def line(self, path: Path) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def read_yaml(data: bytes, source: str) -> tuple[Any, LineIndex]:
    """(value, lines). Raises UsageError `InvalidCodeOfConduct` for what is no YAML in UTF-8, and for a key written twice."""
    try:
        text = data.decode("utf-8-sig")
        loader = yaml.SafeLoader(text)  # libyaml's dies of deep nesting
        node = loader.get_single_node()
        lines: dict[Path, int] = {}
        if node is None:
            return None, LineIndex(lines)
        _index(node, (), lines, source, set())
        return loader.construct_document(node), LineIndex(lines)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError("InvalidCodeOfConduct", f"{source}:{line}: not UTF-8 (byte {data[error.start]:#04x})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError("InvalidCodeOfConduct", f"{source}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError("InvalidCodeOfConduct", f"{source}:1: not YAML: {first_line}") from error


def describe(path: Path, error: dict[str, Any], known: list[str]) -> str:
    """`field: what is wrong`, with "Did you mean" for an unknown field."""
    name = ".".join(str(part) for part in path) or "code of conduct"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"{name}: unknown field." + (f" Did you mean {close[0]}?" if close else f" Known are {', '.join(known)}.")
    if error["type"] == "missing":
        return f"{name}: required field is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    return f"{name}: {message}" + (f", not {given!r}" if isinstance(given, str | int | float) and len(str(given)) < 60 else "")


def _index(node: yaml.Node, path: Path, lines: dict[Path, int], source: str, seen: set[int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:  # an alias; following it again could take for ever
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            below = (*path, str(key_node.value))
            if below in lines:
                name = ".".join(str(part) for part in below)
                raise UsageError("InvalidCodeOfConduct", f"{source}:{key_node.start_mark.line + 1}: {name}: given twice")
            lines[below] = key_node.start_mark.line + 1
            _index(value_node, below, lines, source, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _index(item, (*path, number), lines, source, seen)
