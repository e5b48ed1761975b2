"""The errors of an S3 server and of the network, in our words.

No message quotes a request: URLs and headers may carry credentials, so causes are named by their own text and the
original exceptions are not chained.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from nativealign_workloads.errors import (
    ConfigError,
    DataError,
    NoSpaceError,
    PermissionDenied,
    StepError,
    UnavailableError,
    UsageError,
)

from .base import NotFound

BUSY = frozenset({429, 500, 502, 503, 504})
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
_REFUSED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",
}
# Servers that keep objects as files: a name cannot be a file and a folder at once.
_MISPLACED = {
    "ExistingObjectIsDirectory",
    "ObjectParentIsFile",
    "XMinioObjectExistsAsDirectory",
    "XMinioParentIsObject",
}
_TRANSIENT = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "NoSuchUpload", "IncompleteBody"}


@contextmanager
def s3_errors(store: object, key: str, passing: Collection[str] = ()) -> Iterator[None]:
    """Turn what minio and urllib3 raise into the StepError of the same meaning.

    An S3Error whose code is in `passing` is left to the caller.
    """
    try:
        yield
    except S3Error as exc:
        if exc.code in passing:
            raise
        raise _from_code(exc, store, key) from None
    except (MinioException, urllib3.exceptions.HTTPError) as exc:
        raise unavailable(exc, store) from None
    except ValueError as exc:  # minio's own check of names
        raise UsageError("BadBucketName", f"{store}: {exc}", "use 3 to 63 of a-z, 0-9, dot and dash") from None


def _from_code(exc: S3Error, store: object, key: str) -> StepError:
    code, status = exc.code or "", exc.response.status
    said = f"{store} answers {code} ({exc.message})" + (f" for {key}" if key else "")
    if code in ("NoSuchKey", "NoSuchObject"):
        return NotFound(key, store)
    if code == "NoSuchBucket":
        return ConfigError("BucketNotFound", f"there is no bucket for {store}", "create it, or correct its name")
    if code in _FULL or status == 507:  # before 403, which some servers send for a full quota
        return NoSpaceError("NoSpace", said, "free or add space in the store, then run again")
    if code in _REFUSED or status in (401, 403):
        return PermissionDenied("StoreRefused", said, "check the access key, its policy, and the clock")
    if code in _MISPLACED:
        return UsageError("BadKey", said, "a name cannot be a file and a folder at once")
    if code == "PreconditionFailed":
        return DataError("ObjectChanged", f"{key} of {store} changed while it was read", "keep inputs as they are")
    if code in _TRANSIENT or status in BUSY:
        return UnavailableError("StoreUnavailable", said, "the store is overloaded or failing; try again later")
    return ConfigError("StoreUnfit", said, "check endpoint, region and bucket")


def unavailable(exc: Exception, store: object) -> StepError:
    """For an answer that is not S3's, or none at all."""
    reason = exc.reason if isinstance(exc, urllib3.exceptions.MaxRetryError) and exc.reason else exc
    if isinstance(reason, urllib3.exceptions.SSLError):
        return ConfigError("CertificateRefused", f"{store}: {reason}", "give the store's authority as caBundle")
    said = f"HTTP status {reason.status_code}" if isinstance(reason, ServerError) else str(reason)
    if isinstance(reason, InvalidResponseError):
        said = said.split(", Body:")[0]
    return UnavailableError("StoreUnavailable", f"{store} does not answer: {said}", "check that endpoint and network")
