"""Records topics into a bag as raw messages, and notes when each was sent and received."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from mde_ros.datasets.bag_file import BagWriter
from mde_ros.nodes.player import message_class


class Recorder:
    """Subscribes in a context of its own; `with Recorder(...) as r: r.spin_until(...)`.

    Messages are logged under the time they were received, nanoseconds since the epoch.

    Args:
        path: the mcap file; it appears when recording ends without an exception.
        topics: name → ROS type name of what is recorded.
        noted: name → type of what is only noted, such as the images that come in.
    """

    def __init__(
        self, path: Path, topics: Mapping[str, str], noted: Mapping[str, str] | None = None
    ) -> None:
        # Per topic: stamp of the message → when it was sent, received; nanoseconds of wall time.
        self.sent: dict[str, dict[int, int]] = {}
        self.received: dict[str, dict[int, int]] = {}
        self.count: Counter[str] = Counter()  # messages per topic
        self._bag = BagWriter(path)
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("recorder", context=self._context, enable_rosout=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        for name, kind in topics.items():
            self._subscribe(name, kind, qos, lambda *m: self._bag.write(*m))
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, kind in (noted or {}).items():
            self._subscribe(name, kind, qos, lambda *m: None)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._bag.__exit__(*exception)

    def spin_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Take messages until the condition holds; whether it did before `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def _subscribe(
        self, name: str, kind: str, qos: QoSProfile, keep: Callable[[str, str, int, bytes], None]
    ) -> None:
        sent = self.sent[name] = {}
        received = self.received[name] = {}

        def on_message(raw: bytes, info: Mapping[str, int]) -> None:
            self.count[name] += 1
            stamp = header_stamp_ns(raw)
            sent[stamp], received[stamp] = info["source_timestamp"], info["received_timestamp"]
            keep(name, kind, info["received_timestamp"], raw)

        callback: Any = on_message  # rclpy's annotation knows callbacks of one argument only
        if not hasattr(Subscription, "CallbackType"):  # and so does rclpy itself in humble
            callback = lambda raw: on_message(raw, _now())  # noqa: E731
        self.node.create_subscription(message_class(kind), name, callback, qos, raw=True)


def _now() -> dict[str, int]:
    return dict.fromkeys(("source_timestamp", "received_timestamp"), time.time_ns())


def header_stamp_ns(cdr: bytes) -> int:
    """The stamp of a serialized message that begins with a std_msgs/Header."""
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return seconds * 1_000_000_000 + nanoseconds
