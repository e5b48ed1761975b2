"""`python -m nativealign_workloads.report [--store LOCATION] --output FILE STATUS.json [STATUS.json …]`: one HTML file."""

import argparse
import sys
from pathlib import Path

from nativealign_workloads.errors import NoSpaceError, PermissionDenied, StepError
from nativealign_workloads.report.gather import load
from nativealign_workloads.report.page import render


def main(arguments: list[str]) -> int:
    """Writes the report; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        _write(given.output, render([load(path, given.store) for path in given.status]))
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def _write(path: Path, page: str) -> None:
    """Replaces the file in one piece."""
    partial = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except PermissionError:
        raise PermissionDenied("OutputRefused", f"cannot write {path}", "give another --output") from None
    except OSError as error:
        raise NoSpaceError(
            "OutputFailed", f"cannot write {path}: {error.strerror}", "free space or give another --output"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nativealign_workloads.report", description="The report of a job or a chain.")
    parser.add_argument("--store", help="folder or s3://bucket/prefix; default the store that each job names")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument("status", type=Path, nargs="+", help="status.json of a run")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
