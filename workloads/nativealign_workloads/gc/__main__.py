"""`python -m nativealign_workloads.gc --store LOCATION --names FILE [--delete]`: what no job names any more, and its removal.

FILE is what `nativealign_api.in_use` writes: the digests that all jobs name. Without --delete nothing is removed.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from nativealign_api.vocabulary import ENV_STORE_CA
from nativealign_workloads.errors import ConfigError, StepError
from nativealign_workloads.gc.sweep import Found, Waste, look, remove
from nativealign_workloads.store import ObjectStore, open_store

HOUR = 3600.0
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def main(arguments: list[str]) -> int:
    """Prints a line for each thing that may go or has gone, and a summary; returns the exit code."""
    given = _parser().parse_args(arguments)
    endpoint, region = os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("AWS_REGION")
    try:
        store = open_store(given.store, endpoint=endpoint, region=region, ca_bundle=os.environ.get(ENV_STORE_CA), secrets_dir=None)
        before = time.time() - given.min_age_hours * HOUR
        named = read_names(given.names)
        print(f"looking at {store}: {len(named)} digests are named by jobs", flush=True)
        found = look(store, named, before)
        gone = [waste for waste in found.waste if _settle(store, waste, before, given.delete)]
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(_summary(found, gone, given.delete))
    return 0


def read_names(path: Path) -> set[str]:
    """The digests that jobs name. Raises ConfigError where the file is none of ours."""
    try:
        return set(json.loads(path.read_text())["digests"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("NamesUnreadable", f"cannot read {path}: {error!r}", "write it anew") from None


def _settle(store: ObjectStore, waste: Waste, before: float, delete: bool) -> bool:
    """Removes it where that is wanted, and says so; False where a job came to need it."""
    done = not delete or remove(store, waste, before)
    word = ("removed" if done else "kept, a job needs it now") if delete else "may go"
    print(f"{waste.prefix}  {waste.objects} objects  {amount(waste.size)}  {word}: {waste.why}", flush=True)
    return done


def _summary(found: Found, gone: list[Waste], delete: bool) -> str:
    total = f"{sum(waste.objects for waste in gone)} objects, {amount(sum(waste.size for waste in gone))}"
    kept = f"{found.in_use} digests are in use, {found.young} too young to judge"
    if not gone:
        return f"nothing to remove; {kept}"
    return f"{total} {'removed' if delete else 'may go, and are removed with --delete'}; {kept}"


def amount(size: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == UNITS[0] else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nativealign_workloads.gc", description="Remove what no job names.")
    parser.add_argument("--store", required=True, help="folder or s3://bucket/prefix; credentials as for a pod")
    parser.add_argument("--names", type=Path, required=True, help="JSON file with the digests that jobs name")
    parser.add_argument("--min-age-hours", type=float, default=168.0, help="what was written later stays (default 168)")
    parser.add_argument("--delete", action="store_true", help="remove it; default is to say what may go")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
