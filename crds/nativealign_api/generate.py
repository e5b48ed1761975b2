"""Writes everything that is made from the models: `python -m nativealign_api.generate`, with `--check` to compare only.

`make generate` and `make verify` call it in a checkout; TARGETS is the one list of generated files.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nativealign_api.crd import render_crd
from nativealign_api.kinds import KINDS
from nativealign_api.reference import render_reference
from nativealign_api.vocabulary import GROUP

ROOT = Path(__file__).parents[2]


def chart_crd(kind: str) -> str:
    """The chart's copy of a kind's CRD: a template with a switch, that `helm uninstall` leaves where it is."""
    text = render_crd(kind)
    assert "{{" not in text, "Helm would read it as a template"
    keep = "\nmetadata:\n  annotations:\n    helm.sh/resource-policy: keep\n"
    return "{{- if .Values.crds.enabled }}\n" + text.replace("\nmetadata:\n", keep, 1) + "{{- end }}\n"


TARGETS: dict[str, Callable[[], str]] = {
    **{f"crds/{GROUP}_{kind.plural}.yaml": partial(render_crd, name) for name, kind in KINDS.items()},
    **{f"charts/nativealign/templates/crds/{kind.plural}.yaml": partial(chart_crd, name) for name, kind in KINDS.items()},
    **{f"docs/reference/{name.lower()}.md": partial(render_reference, name) for name in KINDS},
}
"""Text of each generated file, by its path in the checkout."""


def generate(root: Path = ROOT) -> None:
    """Write every target."""
    for path, render in TARGETS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(render(), encoding="utf-8")


def stale(root: Path = ROOT) -> list[str]:
    """Targets that are missing or differ from what the models say."""
    return [path for path, render in TARGETS.items() if not _holds(root / path, render())]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nativealign_api.generate", description="Write the generated files.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    if not parser.parse_args().check:
        generate()
        return 0
    for path in (found := stale()):
        print(f"{path} is out of date; run `make generate`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
