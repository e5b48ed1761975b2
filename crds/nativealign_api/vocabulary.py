"""Words that users see in more than one place: exit codes, reasons, condition types, labels, environment names.

Read by every package; imports nothing of the project.
"""

from enum import IntEnum, StrEnum

GROUP = "nativealign.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "nativealign"

# Where a pod finds its inputs and leaves its last words. The local runner sets the same names.
ENV_JOB = "NATIVEALIGN_JOB"
ENV_INDEX = "JOB_COMPLETION_INDEX"
ENV_WRITER = "NATIVEALIGN_WRITER"
ENV_TERMINATION_LOG = "NATIVEALIGN_TERMINATION_LOG"
ENV_PROGRESS = "NATIVEALIGN_PROGRESS"
ENV_SCRATCH = "NATIVEALIGN_SCRATCH"
ENV_SECRETS = "NATIVEALIGN_SECRETS"
ENV_STORE_CA = "NATIVEALIGN_STORE_CA"
ENV_POD_ADDRESS = "NATIVEALIGN_POD_ADDRESS"
ENV_MODEL_CACHE = "NATIVEALIGN_MODEL_CACHE"
ENV_IDENTITY_TOKEN = "NATIVEALIGN_IDENTITY_TOKEN"
ENV_ACCELERATORS = "NATIVEALIGN_ACCELERATORS"

PROGRESS_PORT = 8090
"""Where a pod serves /progress and /metrics while it runs."""

DEFAULT_JOB_PATH = "/etc/nativealign/job.json"
DEFAULT_TERMINATION_LOG = "/dev/termination-log"
DEFAULT_SCRATCH = "/scratch"
DEFAULT_SECRETS = "/var/run/secrets/nativealign"
DEFAULT_MODEL_CACHE = "/models"

LABEL_KIND = f"{GROUP}/kind"
LABEL_JOB = f"{GROUP}/job"
LABEL_STEP = f"{GROUP}/step"
LABEL_PHASE = f"{GROUP}/phase"
LABEL_ATTEMPT = f"{GROUP}/attempt"
ANNOTATION_CONTENT = f"{GROUP}/content"
"""Of a child: a hash of all that it was made by."""
ANNOTATION_GENERATION = f"{GROUP}/generation"
"""Of a child: the generation of the job's spec that it was made from."""
MANAGED_BY = "nativealign-operator"


class ExitCode(IntEnum):
    """What a step's process ends with (sysexits.h); the Job's podFailurePolicy reads the same numbers."""

    OK = 0
    USAGE = 64
    """The job or its parameters are wrong; trying again cannot help."""
    DATA = 65
    """The input is unreadable as a whole, or more of it than `maxQuarantinedPercent` allows."""
    NO_INPUT = 66
    """A named input does not exist or is empty."""
    UNAVAILABLE = 69
    """A service (store, expert endpoint) does not answer; counted against the retry limit."""
    SOFTWARE = 70
    """A defect of ours."""
    NO_SPACE = 74
    """The disk or the store is full, or another input/output error; counted against the retry limit."""
    TEMPORARY = 75
    """Stopped before the commit, e.g. by SIGTERM; the next attempt goes on."""
    NO_PERMISSION = 77
    """The store or the endpoint refuses the credentials."""
    CONFIG = 78
    """A part of the installation is missing or unfit (secret, bucket, package, conditional writes)."""

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed without anybody changing anything."""
        return self not in {
            ExitCode.OK,
            ExitCode.USAGE,
            ExitCode.DATA,
            ExitCode.NO_INPUT,
            ExitCode.NO_PERMISSION,
            ExitCode.CONFIG,
        }


class Condition(StrEnum):
    """Condition types of the three kinds' status."""

    READY = "Ready"
    STALLED = "Stalled"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    FINISHED = "Finished"


class Outcome(StrEnum):
    """What became of a document in a step. In = sum of all the others."""

    OUT = "out"
    HELD_OUT = "heldOut"
    FILTERED = "filtered"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
