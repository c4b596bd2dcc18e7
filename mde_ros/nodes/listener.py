"""Hears topics as serialized messages, and notes when each was sent and received."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from mde_ros.nodes.player import message_class

Keep = Callable[[str, str, int, bytes], None]


class Listener:
    """Hears topics in a context of its own: `with Listener() as ears: ears.hear(…)`.

    Per topic it notes, by the stamp of the message, when each was sent and received, nanoseconds of
    wall time, and how many came.
    """

    def __init__(self) -> None:
        self.sent: dict[str, dict[int, int]] = {}
        self.received: dict[str, dict[int, int]] = {}
        self.count: Counter[str] = Counter()
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("listener", context=self._context, enable_rosout=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def hear(
        self, name: str, kind: str, keep: Keep = lambda *message: None, reliable: bool = False
    ) -> None:
        """Subscribe to a topic.

        Args:
            name: of the topic.
            kind: its ROS type; the messages begin with a header.
            keep: is given (name, kind, time received, serialized message) of each.
            reliable: ask for every message, which only reliable publishers grant.
        """
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
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        if reliable:
            qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(message_class(kind), name, callback, qos, raw=True)

    def spin_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Take messages until the condition holds; whether it did before `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True


def _now() -> dict[str, int]:
    return dict.fromkeys(("source_timestamp", "received_timestamp"), time.time_ns())


def header_stamp_ns(cdr: bytes) -> int:
    """The stamp of a serialized message that begins with a std_msgs/Header."""
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return seconds * 1_000_000_000 + nanoseconds
