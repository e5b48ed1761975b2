"""Keys of an S3 store: from a mounted secret, from the environment, or for the pod's identity (workload identity).

Called by location.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider, WebIdentityProvider

from nativealign_api.vocabulary import ENV_IDENTITY_TOKEN
from nativealign_workloads.errors import ConfigError, PermissionDenied, UnavailableError

from .s3_errors import BUSY

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
AWS_IDENTITY = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
"""One of them is set in a pod whose service account has a role of AWS (EKS: IRSA, Pod Identity)."""
TIMEOUT = urllib3.Timeout(connect=10, read=30)
RETRIES = urllib3.Retry(total=5, backoff_factor=0.2, status_forcelist=BUSY, allowed_methods=None)


def credentials_from(env: Mapping[str, str], secrets_dir: Path | None, endpoint: str, ca_bundle: str | None) -> Provider:
    """The files AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in `secrets_dir`, which belongs to this one store, or else those
    variables; without both what the pod's identity is exchanged for: by AWS where the pod has a role there, or by the store itself
    (AssumeRoleWithWebIdentity, as MinIO has it). Raises ConfigError `CredentialsMissing`.
    """
    pair = [_secret(name, env, secrets_dir) for name in (ACCESS_KEY, SECRET_KEY)]
    if all(pair):
        return StaticProvider(*pair)
    if not any(pair) and any(env.get(name) for name in AWS_IDENTITY):
        return Exchange(IamAwsProvider(http_client=_pool(None)), "AWS")
    if not any(pair) and (token := env.get(ENV_IDENTITY_TOKEN)):
        read = partial(_read_token, Path(token))
        return Exchange(WebIdentityProvider(jwt_provider_func=read, sts_endpoint=endpoint, http_client=_pool(ca_bundle)), endpoint)
    missing = [name for name, value in zip((ACCESS_KEY, SECRET_KEY), pair, strict=True) if not value]
    where = f"as files in {secrets_dir} or " if secrets_dir else ""
    raise ConfigError("CredentialsMissing", f"no {' and no '.join(missing)}", f"set them {where}in the environment")


def _pool(ca_bundle: str | None) -> urllib3.PoolManager:
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # its warnings quote URLs, which have the token
    return urllib3.PoolManager(timeout=TIMEOUT, retries=RETRIES, ca_certs=ca_bundle or certifi.where())


class Exchange(Provider):
    """Keys for a token of the pod, which are fetched anew before they expire. No message quotes the request: it has the token."""

    def __init__(self, provider: Provider, name: str) -> None:
        self._provider, self._name = provider, name

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except (ValueError, ParseError):
            hint = "check the service account's role and the audience of its tokens (operator.tokenAudience)"
            raise PermissionDenied("IdentityRefused", f"{self._name} gives no keys for the pod's identity", hint) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            said = f"{self._name} does not answer for the pod's identity: {type(error).__name__}"
            raise UnavailableError("StoreUnavailable", said, "check endpoint and network") from None


def _read_token(path: Path) -> dict[str, str]:
    """A kubelet renews the file."""
    return {"access_token": path.read_text().strip()}


def _secret(name: str, env: Mapping[str, str], secrets_dir: Path | None) -> str:
    path = secrets_dir / name if secrets_dir else None
    try:
        if path and path.is_file():
            return path.read_text().strip()
    except PermissionError:
        raise PermissionDenied("SecretUnreadable", f"cannot read {path}", "check the mounted secret's mode") from None
    return env.get(name, "").strip()
