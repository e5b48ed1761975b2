"""What every phase is given: its job, its index, the store, a scratch folder, progress, and the wish to stop.

Built once by __main__ from the environment; phases never read the environment themselves.
"""

import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nativealign_api import vocabulary
from nativealign_api.common import Store
from nativealign_api.plan import step_prefix
from nativealign_api.resolved import ResolvedJob
from nativealign_workloads.errors import ConfigError, StoppedError
from nativealign_workloads.progress import Progress
from nativealign_workloads.store import ANSWER_SECONDS, ObjectStore, open_store

FLUSH_SECONDS = 20.0
"""How long a process that was asked to stop waits for a store that does not answer: less than a pod's grace period."""
PROBE_SECONDS = 1.0
"""Between two questions to the store meanwhile."""


@dataclass
class Context:
    """One index of one phase of one attempt."""

    job: ResolvedJob
    store: ObjectStore
    index: int
    writer: str
    """Names this pod's parts, so that nobody overwrites anybody."""
    scratch: Path
    """Empty folder of this process."""
    model_cache: Path
    """Folder where models are kept; shared between pods where the job has a claim for it."""
    secrets: Path | None
    progress: Progress
    stop: threading.Event = field(default_factory=threading.Event)
    copies: dict[str, str] = field(default_factory=dict)
    """Local copies of inputs, and what the user calls each: a message names the latter."""

    @property
    def prefix(self) -> str:
        """Folder of this step's output."""
        return step_prefix(self.job.step, self.job.digest or "")

    @property
    def device(self) -> str:
        """Where models of this pod run: cuda or cpu."""
        return "cuda" if self.job.resources.gpus_per_node else "cpu"

    @property
    def phase_prefix(self) -> str:
        return f"{self.prefix}/{self.job.phase}"

    @property
    def name(self) -> str:
        """Of this pod, for people: step, phase and index."""
        return f"{self.job.step} {self.job.phase} {self.index}"

    def check_stop(self) -> None:
        """A loop comes round, which is a sign of life. Raises StoppedError once SIGTERM came."""
        self.progress.alive()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Raises StoppedError once SIGTERM came."""
        if self.stop.is_set():
            raise StoppedError("Stopped", f"{self.name} was asked to stop", "run it again to go on")

    def open_bucket(self, bucket: str) -> ObjectStore:
        """Another bucket of the same service, for input."""
        return _open(self.job.store, f"s3://{bucket}", self.secrets / "store" if self.secrets else None)


def from_environment(environment: Mapping[str, str], *, clean: bool = True) -> Context:
    """The context that the operator's pod template, or the local runner, describes in the environment.

    `clean=False` for a rank of a gang, which shares the scratch folder of the process that started it.
    """
    path = Path(environment.get(vocabulary.ENV_JOB, vocabulary.DEFAULT_JOB_PATH))
    try:
        job = ResolvedJob.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError("JobMissing", f"{path} cannot be read: {error.strerror}", f"set {vocabulary.ENV_JOB}") from None
    except ValueError as error:
        raise ConfigError("JobInvalid", f"{path} is not a ResolvedJob of this version: {error}") from None
    index = int(environment.get(vocabulary.ENV_INDEX, "0"))
    secrets = Path(environment.get(vocabulary.ENV_SECRETS, vocabulary.DEFAULT_SECRETS))
    progress = environment.get(vocabulary.ENV_PROGRESS)
    scratch = _scratch(environment, job, index, clean)
    return Context(
        job=job,
        store=_open_store(job, secrets / "store"),
        index=index,
        writer=environment.get(vocabulary.ENV_WRITER) or uuid.uuid4().hex[:12],
        scratch=scratch,
        model_cache=_model_cache(environment, scratch),
        secrets=secrets,
        progress=Progress(Path(progress) if progress else None, step=job.step, phase=job.phase, index=index),
    )


def stop_on_sigterm(context: Context, give_up: Callable[[StoppedError], None]) -> None:
    """SIGTERM and SIGINT set `context.stop`; the phase flushes and ends with StoppedError.

    Where the store does not answer, `give_up` is called after FLUSH_SECONDS, from another thread; it ends the process.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: context.stop.set())
    threading.Thread(target=_give_up_on_silence, args=(context, give_up), daemon=True).start()


def _give_up_on_silence(context: Context, give_up: Callable[[StoppedError], None]) -> None:
    context.stop.wait()
    heard = time.monotonic()
    while time.monotonic() - heard < FLUSH_SECONDS - ANSWER_SECONDS:
        if context.store.answers():
            heard = time.monotonic()
        time.sleep(PROBE_SECONDS)
    give_up(
        StoppedError("Stopped", f"{context.name} was asked to stop, and {context.store} does not answer", "run it again to go on")
    )


def _model_cache(environment: Mapping[str, str], scratch: Path) -> Path:
    folder = Path(environment.get(vocabulary.ENV_MODEL_CACHE) or scratch / "models")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _scratch(environment: Mapping[str, str], job: ResolvedJob, index: int, clean: bool) -> Path:
    root = Path(environment.get(vocabulary.ENV_SCRATCH, vocabulary.DEFAULT_SCRATCH))
    folder = root / f"{job.step}-{job.phase}-{index}"
    if clean:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open_store(job: ResolvedJob, secrets: Path) -> ObjectStore:
    if job.store_folder:
        return open_store(job.store_folder, endpoint=None, region=None, ca_bundle=None, secrets_dir=None)
    if job.store is None:
        raise ConfigError("StoreMissing", "the job names no store", "set spec.store")
    return _open(job.store, f"s3://{job.store.bucket}/{job.store.prefix}", secrets)


def _open(store: Store | None, location: str, secrets: Path | None) -> ObjectStore:
    endpoint, region = (store.endpoint, store.region) if store else (os.environ.get("AWS_ENDPOINT_URL"), None)
    bundle = os.environ.get(vocabulary.ENV_STORE_CA) if store and store.ca_bundle else None
    return open_store(location, endpoint=endpoint, region=region, ca_bundle=bundle, secrets_dir=secrets)
