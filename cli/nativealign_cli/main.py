"""The command line. Commands are thin: each parses, calls one module, prints."""

import errno
import importlib.metadata
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

from nativealign_api.loader import ManifestError, load_jobs
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.state import Busy, Home


class Output(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
WIDE = 1000
"""Columns of a table that goes to no terminal: nothing is cut."""
out, err = Console(emoji=False, width=None if sys.stdout.isatty() else WIDE), Console(emoji=False, stderr=True)

Manifests = Annotated[
    list[Path], typer.Argument(help="YAML files with AlignJob, PretrainJob and EvalJob objects.", show_default=False)
]
HomeOption = Annotated[Path, typer.Option("--home", help="Folder of local runs.", envvar="NATIVEALIGN_HOME")]
JobName = Annotated[str, typer.Argument(help="NAME or KIND/NAME of a job.", show_default=False)]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Ask the cluster of your kubeconfig for the jobs of this namespace.")
]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig, with -n.")]
StoreOption = Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix; default the store that the job writes to.")]
HOME = Path(".nativealign")
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
CLICK_USAGE = 2
"""What click ends with when the command line is wrong."""


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(importlib.metadata.version("nativealign"), highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Native alignment of language models."""


@app.command()
def validate(manifests: Manifests) -> None:
    """Check manifests: every mistake with file, line and field."""
    for job, path in load_jobs(manifests):
        out.print(f"{path}: {job.reference} is valid", highlight=False, soft_wrap=True, markup=False)


@app.command()
def render(
    manifests: Manifests,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of the jobs that name none; default `default`.")
    ] = None,
) -> None:
    """Print the Kubernetes objects that the operator will create."""
    from nativealign_cli.rendering import render_jobs

    sys.stdout.write(render_jobs([job for job, _ in load_jobs(manifests)], namespace))


@app.command()
def run(
    manifests: Manifests,
    home: HomeOption = HOME,
    store: Annotated[Path | None, typer.Option(help="A folder to use as the store, whatever the manifests say.")] = None,
) -> None:
    """Run manifests on this machine; run them again to go on where they stopped."""
    from nativealign_cli.display import Display
    from nativealign_cli.forkserver import ForkServer
    from nativealign_cli.process import Interrupted
    from nativealign_cli.runner import Runner

    jobs = load_jobs(manifests)
    folder = Home(home)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop is asked to stop
    with folder.locked():
        shutil.rmtree(home / "scratch", ignore_errors=True)
        try:
            with closing(ForkServer()) as server:
                code = Runner(folder, Display(out), server, str(store.resolve()) if store else None).run(jobs)
        except (Interrupted, KeyboardInterrupt):
            err.print("stopped; run the same command again to go on")
            code = ExitCode.TEMPORARY
        finally:
            shutil.rmtree(home / "scratch", ignore_errors=True)
    raise typer.Exit(code)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="NAME or KIND/NAME; all jobs without it.")] = None,
    home: HomeOption = HOME,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")] = Output.TABLE,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Show jobs, or the steps of one job."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda remote: remote.show_status(context, namespace, name, output, out, err)))
    from nativealign_cli.inspecting import show_status

    raise typer.Exit(show_status(Home(home), name, output, out, err))


@app.command()
def logs(
    name: JobName,
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    home: HomeOption = HOME,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Print what the processes of a job said."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda remote: remote.show_logs(context, namespace, name, step, follow, out, err)))
    from nativealign_cli.inspecting import show_logs

    raise typer.Exit(show_logs(Home(home), name, step, follow, out, err))


@app.command()
def wait(
    name: JobName,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the job.")],
    timeout: Annotated[float | None, typer.Option(help="Longest wait, in seconds.")] = None,
    context: ContextOption = None,
) -> None:
    """Wait until a job of a cluster has ended: 0 complete, 1 a gate did not pass, 70 failed, 75 not ended in time."""
    raise typer.Exit(_on_cluster(lambda remote: remote.wait(context, namespace, name, timeout, out, err)))


@app.command()
def report(
    name: JobName,
    home: HomeOption = HOME,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    store: StoreOption = None,
) -> None:
    """Print the path of a job's report; of a job of a cluster it is made here."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda remote: remote.make_report(context, namespace, name, store, out, err)))
    from nativealign_cli.inspecting import show_report

    raise typer.Exit(show_report(Home(home), name, out, err))


@app.command()
def explain(
    name: JobName,
    document: Annotated[str, typer.Argument(help="CORPUS/KEY:ORDINAL, or the document's id or your own, which takes longer.")],
    home: HomeOption = HOME,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    store: StoreOption = None,
) -> None:
    """Tell what happened to one document of an AlignJob, step by step, and why."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda remote: remote.explain(context, namespace, name, document, store, out, err)))
    from nativealign_cli.inspecting import explain

    raise typer.Exit(explain(Home(home), name, document, store, out, err))


@app.command()
def download(
    name: JobName,
    folder: Annotated[Path, typer.Argument(help="A new folder, or the same again to go on.")],
    worker: Annotated[bool, typer.Option("--worker", help="The worker that an AlignJob has trained.")] = False,
    home: HomeOption = HOME,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    store: StoreOption = None,
) -> None:
    """Write a job's result as a folder: an AlignJob's dataset, with views and a card, or its worker; a PretrainJob's model."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda remote: remote.download(context, namespace, name, folder, worker, store, err)))
    from nativealign_cli.inspecting import download

    raise typer.Exit(download(Home(home), name, folder, worker, store, err))


@app.command()
def doctor(
    name: Annotated[str | None, typer.Argument(help="NAME or KIND/NAME; without it this machine, or the whole namespace.")] = None,
    home: HomeOption = HOME,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Say what is wrong with this machine, or with a job, and what to do."""
    if namespace:
        raise typer.Exit(_on_cluster(lambda _: _examine_remote(context, namespace, name)))
    from nativealign_cli.doctor import examine

    raise typer.Exit(examine(Home(home), name, out))


def _existing(store: str | None) -> str | None:
    """A store to look into: where a folder is misspelt, nothing would be found in it."""
    if store and "://" not in store and not Path(store).is_dir():
        raise typer.BadParameter(f"there is no folder {store}; a bucket is s3://{store}")
    return store


@app.command()
def gc(
    home: HomeOption = HOME,
    store: Annotated[
        str | None, typer.Option(callback=_existing, help="Folder or s3://bucket/prefix; default the store of the home.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete/--dry-run", help="Remove it, or only say what may go.")] = False,
    min_age_hours: Annotated[float, typer.Option(min=0, help="What was written later stays.")] = 168.0,
    namespaces: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Jobs of this namespace; may be repeated.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Jobs of the whole cluster.")] = False,
    context: ContextOption = None,
) -> None:
    """Find what no job names any more in a store, with its size; remove it with --delete."""
    from nativealign_cli import collecting

    if namespaces or all_namespaces:
        chosen = [] if all_namespaces else list(namespaces or [])
        raise typer.Exit(_on_cluster(lambda _: collecting.collect_on_cluster(context, chosen, store, min_age_hours, delete, err)))
    raise typer.Exit(collecting.collect_here(Home(home), store, min_age_hours, delete, err))


def _examine_remote(context: str | None, namespace: str, name: str | None) -> Coroutine[Any, Any, int]:
    from nativealign_cli.remote_doctor import examine

    return examine(context, namespace, name, out)


def _on_cluster(command: Callable[[ModuleType], Coroutine[Any, Any, int]]) -> int:
    """Runs a command of remote.py, which needs the Kubernetes client."""
    try:
        remote = importlib.import_module("nativealign_cli.remote")
    except ModuleNotFoundError as error:
        err.print(f"{error.name} is not installed: pip install 'nativealign[operator]'", highlight=False, markup=False)
        return ExitCode.CONFIG
    code: int = remote.ask(command(remote), err)
    return code


def main() -> None:
    """Entry point. A user's mistake never shows a traceback."""
    try:
        app()
    except ManifestError as error:
        for problem in error.problems:
            err.print(str(problem), highlight=False, soft_wrap=True, markup=False)
        sys.exit(ExitCode.USAGE)
    except Busy as error:
        err.print(str(error), highlight=False, soft_wrap=True, markup=False)
        sys.exit(ExitCode.TEMPORARY)
    except OSError as error:
        advice = "mend that, or choose another folder with --home, and run again; what is committed is kept"
        err.print(f"{error.filename or 'the disk'}: {error.strerror}; {advice}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(ExitCode.NO_PERMISSION if error.errno in REFUSED else ExitCode.NO_SPACE)
    except SystemExit as end:
        sys.exit(ExitCode.USAGE if end.code == CLICK_USAGE else end.code)


if __name__ == "__main__":
    main()
