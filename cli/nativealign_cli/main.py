"""The command line. Commands are thin: each parses, calls one module, prints."""

import errno
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nativealign_api.loader import ManifestError, load_jobs
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.state import Busy, Home

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Native alignment of language models."
)
out, err = Console(), Console(stderr=True)

Manifests = Annotated[
    list[Path], typer.Argument(help="YAML files with AlignJob, PretrainJob and EvalJob objects.", show_default=False)
]
HomeOption = Annotated[Path, typer.Option("--home", help="Folder of local runs.", envvar="NATIVEALIGN_HOME")]
JobName = Annotated[str, typer.Argument(help="NAME or KIND/NAME of a job that ran here.", show_default=False)]
HOME = Path(".nativealign")
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
CLICK_USAGE = 2
"""What click ends with when the command line is wrong."""


@app.command()
def validate(manifests: Manifests) -> None:
    """Check manifests: every mistake with file, line and field."""
    for job, path in load_jobs(manifests):
        out.print(f"{path}: {job.reference} is valid", highlight=False, soft_wrap=True, markup=False)


@app.command()
def render(manifests: Manifests) -> None:
    """Print the Kubernetes objects that the operator will create."""
    from nativealign_cli.rendering import render_jobs

    sys.stdout.write(render_jobs([job for job, _ in load_jobs(manifests)]))


@app.command()
def run(
    manifests: Manifests,
    home: HomeOption = HOME,
    store: Annotated[Path | None, typer.Option(help="A folder to use as the store, whatever the manifests say.")] = None,
) -> None:
    """Run manifests on this machine; run them again to go on where they stopped."""
    from nativealign_cli.display import Display
    from nativealign_cli.process import Interrupted
    from nativealign_cli.runner import Runner

    jobs = load_jobs(manifests)
    folder = Home(home)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop is asked to stop
    with folder.locked():
        shutil.rmtree(home / "scratch", ignore_errors=True)
        try:
            code = Runner(folder, Display(out), str(store.resolve()) if store else None).run(jobs)
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
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Show jobs, or the steps of one job."""
    from nativealign_cli.inspecting import show_status

    raise typer.Exit(show_status(Home(home), name, output, out, err))


@app.command()
def logs(
    name: JobName,
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Print what the processes of a job said."""
    from nativealign_cli.inspecting import show_logs

    raise typer.Exit(show_logs(Home(home), name, step, follow, out, err))


@app.command()
def report(name: JobName, home: HomeOption = HOME) -> None:
    """Print the path of a job's report."""
    from nativealign_cli.inspecting import show_report

    raise typer.Exit(show_report(Home(home), name, out, err))


@app.command()
def doctor(
    name: Annotated[str | None, typer.Argument(help="NAME or KIND/NAME; this machine without it.")] = None, home: HomeOption = HOME
) -> None:
    """Say what is wrong with this machine, or with one job, and what to do."""
    from nativealign_cli.doctor import examine

    raise typer.Exit(examine(Home(home), name, out))


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
