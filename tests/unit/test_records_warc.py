"""WARC files: plain texts are documents, pages are set aside, breaks are told."""

import gzip
import io

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from nativealign_workloads.records import BadRecord, Fields, Record, read_records

PAGE = b"<html>\xd9\x86\xd8\xb5</html>"


def wet(*texts: bytes, compressed: bool, page: bool = False) -> bytes:
    """A file as Common Crawl writes it, with a record about the crawl before the texts."""
    output = io.BytesIO()
    writer = WARCWriter(output, gzip=compressed)
    writer.write_record(writer.create_warcinfo_record("a.wet", {"software": "test"}))
    for number, text in enumerate(texts):
        headers = {"Content-Type": "text/plain"}
        record = writer.create_warc_record(
            f"https://example.com/{number}", "conversion", payload=io.BytesIO(text), warc_headers_dict=headers
        )
        writer.write_record(record)
    if page:
        http = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.0")
        writer.write_record(
            writer.create_warc_record("https://example.com/page", "response", payload=io.BytesIO(PAGE), http_headers=http)
        )
    return output.getvalue()


def read(data: bytes, key: str, limit: int = 1 << 20) -> list[Record | BadRecord]:
    fields = Fields(id="WARC-Target-URI")
    return list(read_records(io.BytesIO(data), key, format="Auto", fields=fields, max_record_bytes=limit))


@pytest.mark.parametrize(("compressed", "key"), [(True, "a.warc.wet.gz"), (False, "a.wet"), (True, "a.warc.gz")])
def test_texts_are_documents_with_their_address(compressed: bool, key: str) -> None:
    texts = ["نص أول\nسطر ثان\n", "WARC/1.0\r\n\r\nnot a header", ""]
    found = read(wet(*map(str.encode, texts), compressed=compressed), key)
    assert found == [Record(n, text, f"https://example.com/{n}") for n, text in enumerate(texts)]


def test_what_is_no_text_is_set_aside_in_its_place() -> None:
    found = read(wet(b"good", b"\xff", b"a\0", b"x" * 101, compressed=True, page=True), "a.warc.gz", limit=100)
    reasons = ["good", "NotUtf8", "NulCharacter", "RecordTooLarge", "NotPlainText"]
    assert [r.text if isinstance(r, Record) else r.reason for r in found] == reasons
    assert [r.ordinal for r in found] == list(range(5))
    assert "https://example.com/page" in found[-1].detail


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_breaks_off_keeps_what_came_before(compressed: bool) -> None:
    data = wet(*[f"text number {n} ".encode() * 50 for n in range(5)], compressed=compressed)
    found = read(data[: len(data) * 3 // 4], "a.warc.gz" if compressed else "a.warc")
    assert 1 <= len(found) < 6
    assert all(isinstance(record, Record) for record in found[:-1])
    assert found[-1].reason == "TruncatedFile"


def test_what_is_no_warc_file_is_broken() -> None:
    for data, key in ((b"hello\n" * 10, "a.warc"), (gzip.compress(b"hello\n" * 10, mtime=0), "a.warc.gz")):
        (found,) = read(data, key)
        assert (found.reason, "WARC" in found.detail) == ("BrokenFile", True)
