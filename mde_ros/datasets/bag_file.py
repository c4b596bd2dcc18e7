"""Bag files as they are, ROS 2 (mcap, sqlite3) and ROS 1: topics and raw messages.

`Bag` reads, `BagWriter` writes, `FolderBag` is an RGB-D folder that looks like a Bag.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, Qos, QosDurability, QosReliability
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from mde_ros.datasets import DatasetError
from mde_ros.datasets.bag_messages import JAZZY, SAMPLE_TOPICS, sample_messages
from mde_ros.datasets.mcap_repair import UNPACK, repaired
from mde_ros.datasets.rgbd_folder import RgbdFolder, RgbdFolders

LISTED_TOPICS = 30
RECOVERY = {".mcap": "`mcap recover`", ".bag": "`rosbag reindex`", ".db3": "`sqlite3 .recover`"}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins so: its first byte is 0


class BagError(DatasetError):
    """A bag that cannot be read or lacks what is needed; the message is one sentence."""


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: ROS 2 type name, number of messages, and how they were offered.

    Late joiners got what is latched; what is not reliable was offered as best effort only.
    """

    name: str
    type: str
    count: int
    latched: bool = False
    reliable: bool = True


class Bag:
    """An opened bag: its topics and its messages in the order they were logged.

    Attributes:
        cut_off: whether it is an mcap file that breaks off and is read as far as it goes.

    Raises:
        BagError: when it is missing, corrupt, cut off, empty or of an unknown kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._converters: dict[str, Callable[[bytes], bytes]] = {}
        if not self.path.exists():
            raise BagError(f"{path}: there is no such bag")
        with self._reading():
            self._reader, self.cut_off = self._opened(self._storage())
        try:
            if not self._reader.message_count:
                raise BagError(f"{path}: the bag is empty, it has no messages")
            self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time - 1
            self._connections: dict[str, list[Connection]] = {}
            for connection in self._reader.connections:
                self._connections.setdefault(connection.topic, []).append(connection)
            self.topics = {name: _topic(name, c) for name, c in self._connections.items()}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; calling it again does nothing."""
        # Not the reader's own close(), which imports modules and so fails when Python exits.
        stack, self._reader.stack = self._reader.stack, None
        if stack:
            stack.close()

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, log time, message as stored) of these topics (all), start <= time < stop.

        Raises:
            BagError: when a topic is not in the bag, or where the bag breaks off.
        """
        chosen = list(self.topics) if topics is None else [self.topic(t).name for t in topics]
        connections = [c for topic in chosen for c in self._connections[topic]]
        if not connections:
            return
        with self._reading():
            stored = self._reader.messages(connections, start_ns, stop_ns)
        while True:
            with self._reading():
                item = next(stored, None)
                if item is None:
                    return
                connection, time_ns, raw = item
                if raw[:4] == _ZSTD_MAGIC:
                    raw = UNPACK["zstd"](raw)
            yield connection.topic, time_ns, raw

    def topic(self, name: str) -> Topic:
        """The topic of this name.

        Raises:
            BagError: when the bag has none, listing those it has.
        """
        if name not in self.topics:
            raise BagError(
                f"{self.path}: there is no topic {name} in it; it has {self.listed(self.topics)}"
            )
        return self.topics[name]

    def listed(self, names: Iterable[str]) -> str:
        """Topics with their types, for a message to the user."""
        every = [f"{n} ({self.topics[n].type})" for n in sorted(names)]
        more = [f"and {len(every) - LISTED_TOPICS} more"] if len(every) > LISTED_TOPICS else []
        return ", ".join(every[:LISTED_TOPICS] + more) or "none"

    def decode(self, topic: str, raw: bytes) -> Any:
        """A stored message as an object with the fields of its type; arrays are not copied."""
        with self._reading():
            return self._reader.deserialize(raw, self._stored_type(topic))

    def cdr(self, topic: str, raw: bytes) -> bytes:
        """A stored message as ROS 2 publishes it: itself, or converted from ROS 1.

        Raises:
            BagError: when ROS 2 has no such type.
        """
        if self._reader.is2:
            return raw
        if topic not in self._converters:
            self._converters[topic] = self._converter(topic)
        with self._reading():
            return bytes(self._converters[topic](raw))

    def _converter(self, topic: str) -> Callable[[bytes], bytes]:
        source, target = self._stored_type(topic), self.topics[topic].type
        if target not in JAZZY.fielddefs:
            raise BagError(f"{self.path}: {topic} is a {source}, which ROS 2 does not know")
        if is_same_wireformat(self._reader.typestore, JAZZY, source, target):
            return partial(JAZZY.ros1_to_cdr, typename=target)  # type: ignore[return-value]
        store, cache = self._reader.typestore, {}  # type: ignore[var-annotated]
        return lambda raw: migrate_bytes(  # type: ignore[return-value]
            store, JAZZY, source, target, cache, raw, src_is2=False, dst_is2=True
        )

    def _stored_type(self, topic: str) -> str:
        return _full_type(self._connections[topic][0])

    def _opened(self, storage: Path) -> tuple[AnyReader, bool]:
        """A reader, and whether the file had to be repaired for it."""
        reader = AnyReader([storage], default_typestore=JAZZY)
        try:
            reader.open()
            return reader, False
        except Exception:
            whole = repaired(storage) if storage.suffix == ".mcap" else None
            if whole is None:
                raise
        reader = AnyReader([whole], default_typestore=JAZZY)  # type: ignore[list-item]
        reader.open()
        return reader, True

    def _storage(self) -> Path:
        if not self.path.is_dir() or (self.path / "metadata.yaml").is_file():
            return self.path
        files = [f for s in ("*.mcap", "*.db3") for f in self.path.glob(s)]
        if len(files) != 1:
            raise BagError(f"{self.path}: expected a bag, but the folder has no metadata.yaml")
        return files[0]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn whatever the bag library raises on a broken bag into one sentence."""
        try:
            yield
        except BagError:
            raise
        except Exception as error:  # struct, zstd, sqlite, yaml, … errors share no other base
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            tool = RECOVERY.get(self._storage().suffix) if self.path.exists() else None
            hint = f" (if it was cut off, {tool} restores what is left)" if tool else ""
            raise BagError(
                f"{self.path}: cannot be read as a bag: {reason[0].lower()}{reason[1:]}{hint}"
            ) from error


def _topic(name: str, connections: list[Connection]) -> Topic:
    offered: list[Qos] = [
        q for c in connections for q in getattr(c.ext, "offered_qos_profiles", [])
    ]
    latched = (
        any(q.durability == QosDurability.TRANSIENT_LOCAL for q in offered)
        or any(getattr(c.ext, "latching", 0) for c in connections)  # ROS 1
        or connections[0].topic == "/tf_static"
    )
    unreliable = [q.reliability == QosReliability.BEST_EFFORT for q in offered]
    reliable = not unreliable or not all(unreliable)
    kind = _full_type(connections[0])
    kind = "tf2_msgs/msg/TFMessage" if kind == "tf/msg/tfMessage" else kind  # of early ROS 1
    return Topic(name, kind, sum(c.msgcount for c in connections), latched, reliable)


def _full_type(connection: Connection) -> str:
    kind = connection.msgtype  # some writers leave /msg/ out
    return kind if "/msg/" in kind else kind.replace("/", "/msg/")


class FolderBag:
    """An RGB-D folder as if it were a Bag, so that it can be played.

    Args:
        path: a folder that RgbdFolder reads, or a folder of such.
        rate_hz: frames per second.

    Raises:
        DatasetError: when it is no such folder.
    """

    START_NS = 1_000_000_000  # ROS takes a stamp of zero for none

    def __init__(self, path: str | Path, rate_hz: float = 10.0) -> None:
        self.path = Path(path)
        cls = RgbdFolder if (self.path / "intrinsics.json").is_file() else RgbdFolders
        self.dataset = cls(self.path)
        if not len(self.dataset):
            raise BagError(f"{path}: expected a folder with rgb/, depth/ and intrinsics.json")
        self.period_ns = round(1e9 / rate_hz)
        self.start_ns = self.START_NS
        self.end_ns = self.stamp(len(self.dataset) - 1)
        count = len(self.dataset)
        self.topics = {name: Topic(name, kind, count) for name, kind in SAMPLE_TOPICS.items()}

    def __enter__(self) -> FolderBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """There is nothing to close."""

    def stamp(self, index: int) -> int:
        """The time of a frame, nanoseconds."""
        return self.start_ns + index * self.period_ns

    def topic(self, name: str) -> Topic:
        """The topic of this name.

        Raises:
            BagError: when there is none, listing those there are.
        """
        if name not in self.topics:
            raise BagError(
                f"{self.path}: there is no topic {name} in it; it has {', '.join(self.topics)}"
            )
        return self.topics[name]

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[tuple[str, int, bytes]]:
        """As Bag.messages."""
        chosen = set(self.topics if topics is None else topics)
        first = -(-max(0, (start_ns or 0) - self.start_ns) // self.period_ns)
        for i in range(first, len(self.dataset)):
            if stop_ns is not None and self.stamp(i) >= stop_ns:
                return
            sample = self.dataset[i]
            messages = sample_messages(sample.frame, sample.truth_m, self.stamp(i))
            yield from (m for m in messages if m[0] in chosen)

    def cdr(self, topic: str, raw: bytes) -> bytes:
        """As Bag.cdr."""
        return raw


class BagWriter:
    """A new mcap file: `with BagWriter(path) as bag: bag.write(topic, type, time_ns, cdr)`.

    It is complete or, after an exception, not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".bag-", dir=self.path.parent))
        self._writer = Writer(self._folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}
        self._writer.open()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._writer.close()
                (self._folder / "bag" / "bag.mcap").replace(self.path)
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, topic: str, kind: str, time_ns: int, cdr: bytes) -> None:
        """Append a message; times may come in any order.

        Raises:
            BagError: on a type that ROS 2 does not know.
        """
        if topic not in self._connections:
            if kind not in JAZZY.fielddefs:
                raise BagError(f"{self.path}: {topic} is a {kind}, which ROS 2 does not know")
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=JAZZY)
        self._writer.write(self._connections[topic], time_ns, cdr)
