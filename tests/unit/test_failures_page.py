"""docs/failures.md: every reason that the source can give is there with its exit code, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nativealign_api.vocabulary import ExitCode
from nativealign_cli.runner import GATE_FAILED
from nativealign_workloads import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text()
OTHERS = {"GateFailed": {GATE_FAILED}, "Interrupted": {ExitCode.TEMPORARY}, "ProcessDied": {ExitCode.SOFTWARE}}
"""Reasons that the runner gives without raising an error."""


def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for folder in ("workloads", "cli") for path in sorted((ROOT / folder).rglob("*.py"))]


def family(modules: list[ast.Module]) -> dict[str, int]:
    """Exit code of each error class by its name, subclasses in other modules included."""
    known = {
        name: int(kind.exit_code) for name, kind in vars(errors).items() if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    known["Blocked"] = int(ExitCode.NO_INPUT)
    classes = [node for module in modules for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    for node in classes:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in known]
        if bases:
            known.setdefault(node.name, known[bases[0]])
    return known


def raised(modules: list[ast.Module]) -> Iterator[tuple[str, int]]:
    """(reason, exit code) of every error made with a reason written out, also by a subclass for its base."""
    known = family(modules)
    for module in modules:
        for node in ast.walk(module):
            own = known.get(node.name) if isinstance(node, ast.ClassDef) else None
            for call in ast.walk(node) if own is not None else [node]:
                name = _called(call)
                code = own if name == "__init__" else known.get(name)
                if code is not None:
                    yield from ((reason, code) for reason in _reasons(call))


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _reasons(node: ast.AST) -> list[str]:
    """The first argument, written out; of an f-string `NonFinite{what}` every row of the page that it may mean."""
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
        start = str(first.values[0].value)
        if not re.fullmatch(r"[A-Z]\w+", start):
            return []
        found = re.findall(rf"^\| `({start}\w+)`", PAGE, re.MULTILINE)
        assert found, f"docs/failures.md has no {start}…"
        return found
    return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


def test_the_page_lists_every_reason_with_its_exit_codes_and_no_other() -> None:
    in_source: dict[str, set[int]] = {name: set(map(int, codes)) for name, codes in OTHERS.items()}
    for reason, code in raised(trees()):
        in_source.setdefault(reason, set()).add(code)
    rows = re.findall(r"^\| `(\w+)` \| ([0-9, ]+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    assert {name: set(map(int, codes.split(","))) for name, codes in rows} == in_source


def test_the_page_lists_every_exit_code() -> None:
    codes = set(map(int, re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)))
    assert codes == {*map(int, ExitCode), GATE_FAILED}
    for code in (code for code in ExitCode if code.retryable and code is not ExitCode.TEMPORARY and code is not ExitCode.SOFTWARE):
        assert re.search(rf"^\| {int(code)} \|.*\| yes", PAGE, re.MULTILINE)
