"""`nativealign gc`: gathers what jobs name, here or on a cluster, and has the workloads look for what nobody names."""

import tempfile
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from nativealign_api.in_use import UNKNOWN, names_file
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.state import Home
from nativealign_cli.workloads import run_module


def collect_here(home: Home, store: str | None, hours: float, delete: bool, err: Console) -> int:
    """The jobs that ran in a home; none runs meanwhile. Removing a job's folder below runs/ lets its data go."""
    with home.locked():
        jobs = []
        for run in home.runs():
            try:
                jobs.append(KINDS[run.reference.partition("/")[0]].model.model_validate(run.record()))
            except ValidationError as error:
                err.print(f"{run.folder} does not fit this version: {error.errors()[0]['msg']}; {UNKNOWN}", highlight=False)
                return ExitCode.CONFIG
        return sweep(jobs, store or str(home.store.resolve()), hours, delete, err)


async def collect_on_cluster(
    context: str | None, namespaces: list[str], store: str | None, hours: float, delete: bool, err: Console
) -> int:
    """The jobs of a cluster: of all its namespaces, or of some where no others use the store."""
    from nativealign_cli.remote import connected
    from nativealign_operator.names import Unreadable, all_jobs

    if store is None:
        err.print("give --store s3://bucket/prefix, with AWS_ENDPOINT_URL and credentials in the environment", highlight=False)
        return ExitCode.USAGE
    async with connected(context, "") as remote:
        try:
            jobs = await all_jobs(remote.cluster, namespaces)
        except Unreadable as error:
            err.print(f"{error}; {UNKNOWN}", highlight=False, soft_wrap=True, markup=False)
            return ExitCode.CONFIG
    return sweep(jobs, store, hours, delete, err)


def sweep(jobs: list[JobObject], store: str, hours: float, delete: bool, err: Console) -> int:
    """Runs the workloads' part; its output is the command's."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names.json"
        names.write_text(names_file(jobs))
        how = ["--min-age-hours", str(hours), *(["--delete"] if delete else [])]
        return run_module("gc", store, "--names", names, *how, err=err)
