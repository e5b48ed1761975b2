"""An S3 store that is wrong, absent, or breaks connections: a clear error, or no harm."""

import http.client
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.cluster.s3 import S3Server, s3_server
from tests.cluster.servers import freeze
from tests.serving import QuietHandler, serving
from tests.workloads.stores import store_at

from nativealign_workloads.errors import (
    ConfigError,
    DataError,
    NoSpaceError,
    PermissionDenied,
    UnavailableError,
    UsageError,
)
from nativealign_workloads.store import (
    AlreadyExists,
    LocalStore,
    NotFound,
    ObjectStore,
    open_store,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@dataclass
class Faults:
    """What the proxy does to the traffic; counters run down to 0."""

    strip: set[str] = field(default_factory=set)
    drop_replies_to_put: int = 0
    cut_bodies: int = 0
    answer: tuple[int, bytes] | None = None


@contextmanager
def proxy(server: S3Server, faults: Faults) -> Iterator[S3Server]:
    """A server in front of `server` that forwards everything, the Host header too, except for `faults`."""

    class Handler(QuietHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if faults.answer:
                self.reply(faults.answer[0], [("content-type", "application/xml")], faults.answer[1])
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in faults.strip}
            backend = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
            backend.request(self.command, self.path, body, headers)
            answer = backend.getresponse()
            data = answer.read()
            if self.command == "PUT" and faults.drop_replies_to_put:
                faults.drop_replies_to_put -= 1
                self.close_connection = True
                return
            self.reply(answer.status, answer.getheaders(), data)

        def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response(status)
            length = next((v for k, v in headers if k.lower() == "content-length"), str(len(data)))
            for key, value in headers:
                if key.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(key, value)
            self.send_header("content-length", length)
            self.end_headers()
            if self.command == "GET" and len(data) > MIB and faults.cut_bodies:
                faults.cut_bodies -= 1
                data, self.close_connection = data[: len(data) // 2], True
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    with serving(Handler) as port:
        yield replace(server, endpoint=f"http://127.0.0.1:{port}")


def every_call(store: ObjectStore, tmp_path: Path) -> list:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return [
        lambda: store.stat("a"),
        lambda: store.read("a"),
        lambda: store.write("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.upload("a", source),
        lambda: store.download("a", tmp_path / "target"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
        store.self_test,
    ]


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_a_refusal_that_prints_none_of_them(server: S3Server, tmp_path: Path, wrong: str):
    server = replace(server, **{wrong: "wrong-credential"})
    for call in every_call(store_at(server), tmp_path):
        with pytest.raises(PermissionDenied) as caught:
            call()
        assert server.endpoint in str(caught.value)
        assert server.secret_key not in str(caught.value)
        assert server.access_key not in str(caught.value)


def test_a_missing_bucket_is_named_by_every_call(server: S3Server, tmp_path: Path):
    for call in every_call(store_at(replace(server, bucket="no-such-bucket")), tmp_path):
        with pytest.raises(ConfigError, match=r"BucketNotFound.*no-such-bucket"):
            call()


def test_an_impossible_bucket_name_is_named(server: S3Server, tmp_path: Path):
    for call in every_call(store_at(replace(server, bucket="b1")), tmp_path):
        with pytest.raises(UsageError, match=r"BadBucketName.*b1"):
            call()


def test_a_store_that_does_not_answer_is_unavailable(server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Port 1 of this machine has no listener. What the libraries log on the way holds no credential either."""
    caplog.set_level(logging.DEBUG)
    nowhere = replace(server, endpoint="http://127.0.0.1:1")
    for call in every_call(store_at(nowhere, retries=1), tmp_path):
        with pytest.raises(UnavailableError, match=r"StoreUnavailable.*refused") as caught:
            call()
        assert "http://127.0.0.1:1" in str(caught.value)
        assert caught.value.__suppress_context__
    assert server.access_key not in caplog.text
    assert server.secret_key not in caplog.text


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (507, error_body("XMinioStorageFull"), NoSpaceError),
        (403, error_body("QuotaExceeded"), NoSpaceError),
        (503, error_body("SlowDown"), UnavailableError),
        (500, error_body("InternalError"), UnavailableError),
        (502, b"<html>Bad gateway</html>", UnavailableError),
        (403, error_body("RequestTimeTooSkewed"), PermissionDenied),
        (400, error_body("AuthorizationHeaderMalformed"), ConfigError),
    ],
)
def test_every_answer_of_a_failing_server_has_its_error(server: S3Server, status: int, body: bytes, error):
    with proxy(server, Faults(answer=(status, body))) as faulty:
        store = store_at(faulty, retries=0)
        for call in (lambda: store.read("a"), lambda: store.write("a", b""), lambda: list(store.list(""))):
            with pytest.raises(error) as caught:
                call()
            assert type(caught.value) is error


def test_a_full_store_is_told_from_a_refusal_when_creating(server: S3Server):
    with (
        proxy(server, Faults(answer=(507, error_body("XMinioStorageFull")))) as faulty,
        pytest.raises(NoSpaceError, match="NoSpace"),
    ):
        store_at(faulty, retries=0).create("a", b"x")


def test_the_self_test_refuses_a_proxy_that_drops_the_condition(server: S3Server):
    with proxy(server, Faults(strip={"if-none-match"})) as faulty:
        store = store_at(faulty, "stripped")
        with pytest.raises(ConfigError, match="NoConditionalWrites") as caught:
            store.self_test()
    assert faulty.endpoint in caught.value.message
    assert caught.value.hint


def test_the_self_test_refuses_a_server_without_conditional_writes(server: S3Server):
    with (
        proxy(server, Faults(answer=(501, error_body("NotImplemented")))) as faulty,
        pytest.raises(ConfigError, match="NoConditionalWrites"),
    ):
        store_at(faulty, retries=0).self_test()


def test_a_create_whose_reply_was_lost_succeeds_by_its_content(server: S3Server):
    faults = Faults(drop_replies_to_put=1)
    with proxy(server, faults) as faulty:
        store = store_at(faulty, "lost")
        store.create("mine", b"content")
        assert faults.drop_replies_to_put == 0
        assert store.read("mine") == b"content"
        store.write("theirs", b"other content")
        faults.drop_replies_to_put = 1
        with pytest.raises(AlreadyExists):
            store.create("theirs", b"content")


def test_a_download_goes_on_where_the_connection_broke(server: S3Server, tmp_path: Path):
    data = b"".join(b"%015d\n" % n for n in range(5 * MIB // 16))
    faults = Faults(cut_bodies=2)
    with proxy(server, faults) as faulty:
        store = store_at(faulty, "cut")
        store.write("a", data)
        store.download("a", tmp_path / "a")
        assert faults.cut_bodies == 0
    assert (tmp_path / "a").read_bytes() == data


def test_an_object_replaced_while_it_is_read_is_never_mixed(server: S3Server):
    faults = Faults()
    with proxy(server, faults) as faulty:
        store = store_at(faulty, "changed")
        store.write("a", b"1" * 3 * MIB)
        with store.open("a") as stream:
            assert stream.read(MIB) == b"1" * MIB
            store.write("a", b"2" * 3 * MIB)
            stream.seek(0)
            with pytest.raises(DataError, match="ObjectChanged"):
                stream.read()


def test_locations_open_the_store_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    arguments = {"endpoint": "http://store:9000", "region": None, "ca_bundle": None, "secrets_dir": None}
    assert isinstance(open_store(str(tmp_path), **arguments), LocalStore)
    assert str(open_store("s3://bucket/a/b/", **arguments)) == "s3://bucket/a/b/ at http://store:9000"
    for location in ("s3://", "gs://bucket/a"):
        with pytest.raises(UsageError, match="BadLocation"):
            open_store(location, **arguments)
    for endpoint in ("store:9000", "http://store:9000/path", "ftp://store"):
        with pytest.raises(ConfigError, match="BadEndpoint"):
            open_store("s3://bucket", **{**arguments, "endpoint": endpoint})
    with pytest.raises(ConfigError, match="CaBundleMissing"):
        open_store("s3://bucket", **{**arguments, "ca_bundle": str(tmp_path / "none.pem")})


def test_a_missing_object_is_told_from_a_missing_bucket(server: S3Server):
    store = store_at(server, "empty")
    assert store.stat("a") is None
    with pytest.raises(NotFound):
        store.read("a")


def test_a_store_answers_unless_it_is_silent(server: S3Server):
    """Any answer counts, a refusal too; a stopped server takes connections and says nothing."""
    assert server.process
    assert store_at(server).answers()
    assert store_at(replace(server, secret_key="wrong-credential")).answers()
    assert not store_at(replace(server, endpoint="http://127.0.0.1:1")).answers()
    freeze(server.process)
    try:
        assert not store_at(server).answers()
    finally:
        server.process.send_signal(signal.SIGCONT)
