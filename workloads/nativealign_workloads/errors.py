"""The family of errors that a step may end with. Each knows its exit code and what the user can do.

StepError
├── UsageError            64  wrong parameters
├── DataError             65  unreadable input
├── NoInputError          66  missing or empty input
├── UnavailableError      69  a service does not answer
├── NoSpaceError          74  disk or store full
├── StoppedError          75  asked to stop before the commit
├── PermissionDenied      77  credentials refused
└── ConfigError           78  the installation lacks something
"""

from nativealign_api.vocabulary import ExitCode


class StepError(Exception):
    """A failure that a user can read.

    `code` is a CamelCase reason (e.g. `BucketNotFound`), `message` names the object and what is wrong with it,
    `hint` says what to do.
    """

    exit_code = ExitCode.SOFTWARE

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f" ({hint})" if hint else ""))
        self.code, self.message, self.hint = code, message, hint


class UsageError(StepError):
    exit_code = ExitCode.USAGE


class DataError(StepError):
    exit_code = ExitCode.DATA


class NoInputError(StepError):
    exit_code = ExitCode.NO_INPUT


class UnavailableError(StepError):
    exit_code = ExitCode.UNAVAILABLE


class NoSpaceError(StepError):
    exit_code = ExitCode.NO_SPACE


class StoppedError(StepError):
    exit_code = ExitCode.TEMPORARY


class PermissionDenied(StepError):
    exit_code = ExitCode.NO_PERMISSION


class ConfigError(StepError):
    exit_code = ExitCode.CONFIG
