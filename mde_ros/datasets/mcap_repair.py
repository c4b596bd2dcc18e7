"""mcap files that break off: the index is written last, so a robot that loses power leaves none.

`repaired` indexes the chunks that are whole, without copying them. Layout: mcap.dev/spec.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, BinaryIO

import lz4.frame

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
except ImportError:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = 2, 3, 4, 6, 7, 8
UNPACK: dict[str, Any] = {"": bytes, "zstd": zstd.decompress, "lz4": lz4.frame.decompress}


class Repaired:
    """What rosbags takes for a path: the first bytes of a file and an index after them."""

    suffix = ".mcap"

    def __init__(self, path: Path, end: int, index: bytes) -> None:
        self._path, self._end, self._index = path, end, index
        self.stem = path.stem

    def exists(self) -> bool:
        """It does."""
        return True

    def is_dir(self) -> bool:
        """It is a file."""
        return False

    def open(self, *_: Any) -> BinaryIO:
        """The file as it would be, for reading."""
        return io.BufferedReader(_Joined(self._path.open("rb"), self._end, self._index))


class _Joined(io.RawIOBase):
    """The first `end` bytes of a file and some after them."""

    def __init__(self, file: BinaryIO, end: int, index: bytes) -> None:
        self._file, self._end, self._index, self._place = file, end, index, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._place,
            io.SEEK_END: self._end + len(self._index),
        }
        self._place = begin[whence] + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place < self._end:
            self._file.seek(self._place)
            data = self._file.read(min(len(buffer), self._end - self._place))
        else:
            data = self._index[self._place - self._end :][: len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def repaired(path: Path) -> Repaired | None:
    """An mcap file up to its last whole chunk, with an index; None when there is no such chunk.

    Raises:
        Exception: whatever unpacking damaged data may raise.
    """
    described: dict[tuple[int, bytes], bytes] = {}  # schema and channel records by op and id
    index, end = b"", 0
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        chunk: int | None = None  # where the last one begins
        messages: dict[bytes, int] = {}  # its channels, and where each one's messages are listed
        place, size = len(MAGIC), path.stat().st_size
        while place + 9 <= size:
            file.seek(place)
            op, length = struct.unpack("<BQ", file.read(9))
            if op == 0:  # never written
                break
            if chunk is not None and op != MESSAGE_INDEX:  # so its list of messages is complete
                index += _chunk_index(file, chunk, place, messages, described)
                end, chunk, messages = place, None, {}
                file.seek(place + 9)
            if place + 9 + length > size:
                break
            if op == CHUNK:
                chunk = place
            elif op == MESSAGE_INDEX:
                messages[file.read(2)] = place
            elif op in (SCHEMA, CHANNEL):
                _describe(op, file.read(length), described)
            place += 9 + length
    if not index:
        return None
    footer = _record(FOOTER, struct.pack("<QQI", end, 0, 0)) + MAGIC
    return Repaired(path, end, b"".join(described.values()) + index + footer)


def _chunk_index(
    file: BinaryIO,
    chunk: int,
    next_record: int,
    messages: dict[bytes, int],
    described: dict[tuple[int, bytes], bytes],
) -> bytes:
    """The index record of a chunk; schemas and channels that are only in it are described too."""
    file.seek(chunk + 1)
    length, start, stop, unpacked, _, name_length = struct.unpack("<QQQQII", file.read(40))
    compression = file.read(name_length)
    (packed,) = struct.unpack("<Q", file.read(8))
    if any((CHANNEL, channel) not in described for channel in messages):
        data, place = UNPACK[compression.decode()](file.read(packed)), 0
        while place < len(data):
            op, inside = struct.unpack_from("<BQ", data, place)
            if op in (SCHEMA, CHANNEL):
                _describe(op, data[place + 9 : place + 9 + inside], described)
            place += 9 + inside
    offsets = b"".join(channel + struct.pack("<Q", place) for channel, place in messages.items())
    head = struct.pack("<QQQQI", start, stop, chunk, 9 + length, len(offsets))
    tail = struct.pack("<QI", next_record - chunk - 9 - length, name_length)
    sizes = struct.pack("<QQ", packed, unpacked)
    return _record(CHUNK_INDEX, head + offsets + tail + compression + sizes)


def _describe(op: int, data: bytes, described: dict[tuple[int, bytes], bytes]) -> None:
    described.setdefault((op, data[:2]), _record(op, data))


def _record(op: int, data: bytes) -> bytes:
    return struct.pack("<BQ", op, len(data)) + data
