"""Where the keys of an S3 store come from. The store is a real one; the service that gives keys for a token is played."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.cluster.s3 import S3Server, s3_server
from tests.serving import QuietHandler, serving

from nativealign_api.vocabulary import ENV_IDENTITY_TOKEN
from nativealign_workloads.errors import ConfigError, PermissionDenied, StepError, UnavailableError
from nativealign_workloads.store import credentials
from nativealign_workloads.store.credentials import credentials_from
from nativealign_workloads.store.s3 import S3Store

NOWHERE = "http://127.0.0.1:9"
ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken>
<Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@dataclass
class TokenService:
    """Gives the keys of a store for one token."""

    store: S3Server
    token: str = "projected"
    valid: timedelta = timedelta(hours=1)
    tokens: list[str] = field(default_factory=list)
    """That were shown, in order."""
    failures: int = 0
    """Answers before the first that is none."""
    url: str = ""

    def answer(self, token: str) -> tuple[int, str]:
        self.tokens.append(token)
        if len(self.tokens) <= self.failures:
            return 503, "<Error/>"
        if token != self.token:
            return 403, "<Error/>"
        expiration = (datetime.now(UTC) + self.valid).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 200, ANSWER.format(key=self.store.access_key, secret=self.store.secret_key, expiration=expiration)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def service(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    monkeypatch.setattr(credentials, "RETRIES", credentials.RETRIES.new(backoff_factor=0))
    found = TokenService(server)

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            code, text = found.answer(parse_qs(urlsplit(self.path).query)["WebIdentityToken"][0])
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

    with serving(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def store_with(server: S3Server, service: TokenService, token: Path) -> S3Store:
    keys = credentials_from({ENV_IDENTITY_TOKEN: str(token)}, None, service.url, None)
    return S3Store(server.endpoint, server.bucket, "identity", credentials=keys, region=server.region, retries=1)


def test_mounted_keys_come_before_those_of_the_environment_and_those_before_an_identity(tmp_path: Path):
    env = {"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "env-secret", ENV_IDENTITY_TOKEN: "none"}

    def pair(env: dict[str, str], folder: Path | None) -> tuple[str, str]:
        keys = credentials_from(env, folder, NOWHERE, None).retrieve()
        return keys.access_key, keys.secret_key

    assert pair(env, None) == ("env-key", "env-secret")
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("file-key\n")
    with pytest.raises(ConfigError, match="no AWS_SECRET_ACCESS_KEY"):
        pair({ENV_IDENTITY_TOKEN: "none"}, tmp_path)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("file-secret")
    assert pair(env, tmp_path) == ("file-key", "file-secret")
    with pytest.raises(StepError, match="CredentialsMissing"):
        pair({}, None)


def test_a_pods_token_is_exchanged_for_keys_once_while_they_are_valid(server: S3Server, service: TokenService, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("projected\n")
    store = store_with(server, service, token)
    store.write("a", b"content")
    assert store.read("a") == b"content"
    assert set(service.tokens) == {"projected"}
    assert len(service.tokens) == 1


def test_keys_that_expire_are_fetched_anew_with_the_token_of_then(server: S3Server, service: TokenService, tmp_path: Path):
    token, service.valid = tmp_path / "token", timedelta(0)
    token.write_text("projected")
    store = store_with(server, service, token)
    store.write("b", b"content")
    service.token = "renewed"
    token.write_text("renewed")
    assert store.read("b") == b"content"
    assert service.tokens[-1] == "renewed"


def test_a_token_that_is_refused_is_told_and_not_shown(server: S3Server, service: TokenService, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("of-nobody")
    with pytest.raises(PermissionDenied, match="IdentityRefused") as caught:
        store_with(server, service, token).read("a")
    assert "of-nobody" not in str(caught.value)


def test_a_service_that_fails_for_a_while_is_outlasted(server: S3Server, service: TokenService, tmp_path: Path):
    (tmp_path / "token").write_text("projected")
    store, service.failures = store_with(server, service, tmp_path / "token"), 5
    store.write("c", b"content")
    assert len(service.tokens) == 6


def test_a_service_that_goes_on_failing_may_come_back(server: S3Server, service: TokenService, tmp_path: Path):
    (tmp_path / "token").write_text("projected")
    store, service.failures = store_with(server, service, tmp_path / "token"), 6
    with pytest.raises(UnavailableError, match="StoreUnavailable"):
        store.write("c", b"content")


@pytest.mark.usefixtures("service")
def test_a_service_that_does_not_answer_is_one_that_may_come_back(tmp_path: Path):
    (tmp_path / "token").write_text("projected")
    keys = credentials_from({ENV_IDENTITY_TOKEN: str(tmp_path / "token")}, None, NOWHERE, None)
    with pytest.raises(UnavailableError, match="StoreUnavailable") as caught:
        keys.retrieve()
    assert "projected" not in str(caught.value)


def test_the_role_of_a_pod_on_eks_comes_before_the_stores_own_service(
    service: TokenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "token").write_text("projected")
    env = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/a",
        ENV_IDENTITY_TOKEN: "none",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    keys = credentials_from(env, None, NOWHERE, None)
    keys._provider._custom_endpoint = service.url  # AWS' own service cannot be reached from a test
    assert keys.retrieve().access_key == service.store.access_key
