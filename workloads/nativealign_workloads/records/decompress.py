"""gzip and zstd as streams of blocks: bounded memory whatever the ratio, and a break is told from an end.

The usual file objects do not fit: zstandard's takes a truncated file for a complete one, gzip's may drop what it had
decompressed before the break. Both formats may hold several members (frames) in a row.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from .model import Broken, Truncated

BLOCK = 1 << 20
# zstd can expand 4 bytes to 128 KiB (an RLE block, RFC 8878 3.1.1.2.2), and the library returns all that one input
# yields: 512 bytes of input bound its output to 16 MiB.
ZSTD_INPUT = 512


def plain_blocks(stream: BinaryIO, head: bytes, compression: str | None) -> Iterator[bytes]:
    """The decompressed content of `head` + the rest of `stream`, in blocks. Raises Truncated or Broken."""
    stored = _stored_blocks(stream, head)
    if compression == "gzip":
        return _gunzip(stored)
    return _unzstd(stored) if compression == "zstd" else stored


def _stored_blocks(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while block := stream.read(BLOCK):
        yield block


def _gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    member, begun = zlib.decompressobj(wbits=31), True
    for block in blocks:
        while block:
            if not begun:
                block = block.lstrip(b"\0")  # padding between members, as gzip allows
                member, begun = zlib.decompressobj(wbits=31), bool(block)
                continue
            try:
                yield member.decompress(block, BLOCK)
            except zlib.error as exc:
                raise Broken(f"gzip: {exc}") from None
            block, begun = member.unused_data or member.unconsumed_tail, not member.eof
    if begun:
        raise Truncated("the gzip stream breaks off")


def _unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame, begun = decompressor.decompressobj(), True
    for block in blocks:
        for start in range(0, len(block), ZSTD_INPUT):
            piece = block[start : start + ZSTD_INPUT]
            while piece:
                if not begun:
                    frame, begun = decompressor.decompressobj(), True
                try:
                    yield frame.decompress(piece)
                except zstandard.ZstdError as exc:
                    raise Broken(f"zstd: {exc}") from None
                piece, begun = frame.unused_data, not frame.eof
    if begun:
        raise Truncated("the zstd stream breaks off")
