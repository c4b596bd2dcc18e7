"""mde play: the messages of a bag as they are, onto their topics, at their times, with /clock."""

from __future__ import annotations

import argparse
import importlib
import math
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from mde_ros.datasets import is_bag
from mde_ros.datasets.bag_file import Bag, BagError, FolderBag

T = TypeVar("T")
CLOCK_PERIOD_S = 0.01
SETTLE_S = 0.2  # between the match that we see and the one that the subscriber sees


class PlayError(ValueError):
    """What was asked for cannot be played; the message is one sentence."""


def open_source(path: str | Path, folder_rate_hz: float = 10.0) -> Bag | FolderBag:
    """A bag, or an RGB-D folder that is played as one.

    Raises:
        DatasetError: when it is neither.
    """
    path = Path(path).expanduser()
    if path.is_dir() and not is_bag(path):
        return FolderBag(path, folder_rate_hz)
    return Bag(path)


class Player:
    """Publishes the messages of a source on a node, latched and reliable as they were recorded.

    Args:
        source: an opened Bag or FolderBag.
        node: has the publishers.
        topics: those to play; all whose types are installed by default.
        remap: names to publish on, by names in the bag.
        rate: times as fast as recorded.
        start_s: where to begin, seconds after the bag's beginning.
        clock: whether to publish the bag's time on /clock.

    Raises:
        PlayError: on a rate or start that makes no sense, or a type that is not installed.
        BagError: when a topic is not in the bag.
    """

    def __init__(
        self,
        source: Bag | FolderBag,
        node: Node,
        topics: Sequence[str] | None = None,
        remap: Mapping[str, str] | None = None,
        rate: float = 1.0,
        start_s: float = 0.0,
        clock: bool = True,
    ) -> None:
        if not rate > 0:
            raise PlayError(f"rate: expected more than 0, got {rate}")
        length_s = (source.end_ns - source.start_ns) * 1e-9
        if not 0 <= start_s <= length_s:
            raise PlayError(
                f"start: expected 0 to {length_s:.3f} s, the bag's length, got {start_s}"
            )
        for name in (*(topics or ()), *(remap or {})):
            source.topic(name)
        self.source, self.node, self.rate = source, node, rate
        self.start_ns = source.start_ns + round(start_s * 1e9)
        self.published = 0
        self.latest_s = 0.0  # how late the most delayed message went out
        self.skipped: list[str] = []
        self.publishers: dict[str, Publisher] = {}
        for name in topics or source.topics:
            try:
                self.publishers[name] = self._publisher(name, (remap or {}).get(name))
            except InvalidTopicNameException as error:
                reason = " ".join(str(error).split())
                raise PlayError(f"{name} cannot be played: {reason}") from None
            except (ImportError, AttributeError, BagError):
                self.skipped.append(f"{name} ({source.topics[name].type})")
                if topics:
                    raise PlayError(f"the type of {self.skipped[-1]} is not installed") from None
        if not self.publishers:
            raise PlayError(f"{source.path}: no type of its topics is installed here")
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None
        self._clock_ns = -1

    def wait_for_subscribers(
        self, topics: Sequence[str] = (), limit_s: float = math.inf, count: int = 1
    ) -> None:
        """Wait until each of these topics (names in the bag) has `count` subscribers.

        Without topics, until any of those played has.

        Raises:
            PlayError: when they have not after `limit_s` seconds.
        """
        for name in topics:
            self.source.topic(name)
        deadline = time.monotonic() + limit_s
        while True:
            heard = {n for n, p in self.publishers.items() if p.get_subscription_count() >= count}
            if heard.issuperset(topics) if topics else heard:
                time.sleep(SETTLE_S)
                return
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(set(topics) - heard)) or "any topic"
                raise PlayError(f"nobody has subscribed to {missing} within {limit_s:g} s")
            time.sleep(0.02)

    def play_once(self, on_progress: Callable[[float], None] = lambda seconds: None) -> None:
        """Publish all once; `on_progress` gets the seconds of bag time played."""
        self._clock_ns = -1  # a bag that starts over turns the clock back
        for name, _, raw in self._before_start():
            self._publish(name, raw)
        messages = self.source.messages(self.publishers, self.start_ns)
        converted = ((name, t_ns, self.source.cdr(name, raw)) for name, t_ns, raw in messages)
        begun = time.monotonic()
        for name, t_ns, cdr in read_ahead(converted):
            due = begun + (t_ns - self.start_ns) * 1e-9 / self.rate
            self._run_clock(begun, due)
            self._tick(t_ns)
            self.latest_s = max(self.latest_s, time.monotonic() - due)
            self.publishers[name].publish(cdr)
            self.published += 1
            on_progress((t_ns - self.start_ns) * 1e-9)

    def drain(self, limit_s: float = 1.0) -> None:
        """Wait until those who asked for every message have got them."""
        deadline = time.monotonic() + limit_s
        for publisher in self.publishers.values():
            left = max(0.0, deadline - time.monotonic())
            publisher.wait_for_all_acked(Duration(nanoseconds=round(left * 1e9)))
        time.sleep(min(SETTLE_S, limit_s))  # best effort is not acknowledged

    def _before_start(self) -> Iterator[tuple[str, int, bytes]]:
        """Messages that late joiners get, from before the start offset."""
        latched = [n for n in self.publishers if self.source.topics[n].latched]
        if latched and self.start_ns > self.source.start_ns:
            for name, t_ns, raw in self.source.messages(latched, None, self.start_ns):
                yield name, t_ns, self.source.cdr(name, raw)

    def _publish(self, name: str, cdr: bytes) -> None:
        self.publishers[name].publish(cdr)
        self.published += 1

    def _publisher(self, name: str, other_name: str | None) -> Publisher:
        topic, public_name = self.source.topics[name], other_name or valid_name(name)
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        if not topic.reliable:
            qos.reliability = ReliabilityPolicy.BEST_EFFORT
        if topic.latched:
            qos.depth, qos.durability = max(10, topic.count), DurabilityPolicy.TRANSIENT_LOCAL
        return self.node.create_publisher(message_class(topic.type), public_name, qos)

    def _run_clock(self, begun: float, due: float) -> None:
        """Sleep until `due`, keeping /clock going."""
        while (left := due - time.monotonic()) > 0:
            if left > CLOCK_PERIOD_S and self._clock:
                time.sleep(CLOCK_PERIOD_S)
                gone_s = min(time.monotonic(), due) - begun
                self._tick(self.start_ns + round(gone_s * self.rate * 1e9))
            else:
                time.sleep(left)

    def _tick(self, now_ns: int) -> None:
        if self._clock and now_ns > self._clock_ns:
            self._clock_ns = now_ns
            self._clock.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))


def valid_name(name: str) -> str:
    """A topic of ROS 1 as ROS 2 can name it: others than letters and digits become _."""
    tokens = re.sub(r"[^A-Za-z0-9_/]", "_", name).split("/")
    return "/".join(f"_{t}" if t[:1].isdigit() else t for t in tokens)


def message_class(kind: str) -> Any:
    """The Python class of a ROS type such as sensor_msgs/msg/Image.

    Raises:
        ImportError, AttributeError: when it is not installed.
    """
    package, _, name = kind.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def read_ahead(items: Iterable[T], depth: int = 16) -> Iterator[T]:
    """The same items, fetched in a thread, so that reading and decompressing delay none of them."""
    fetched: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return fetched.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            item, error = fetched.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def play(
    bag: str | Path,
    *,
    rate: float = 1.0,
    loop: bool = False,
    start: float = 0.0,
    topics: Sequence[str] | None = None,
    remap: Sequence[str] = (),
    clock: bool = True,
    wait: bool = False,
    wait_for: Sequence[str] = (),
    wait_count: int = 1,
    wait_limit: float = math.inf,
    folder_rate: float = 10.0,
    progress: bool = True,
) -> int:
    """Play a bag or an RGB-D folder until its end or Ctrl-C.

    Args:
        bag: path of a ROS 2 or ROS 1 bag, or of an RGB-D folder.
        rate: times as fast as recorded.
        loop: start over at the end.
        start: seconds to skip at the beginning; what late joiners get is published all the same.
        topics: names to play; all by default.
        remap: `FROM:=TO` for names to be published otherwise.
        clock: publish the bag's time on /clock.
        wait: begin when somebody listens, so that the first message is not lost.
        wait_for: topics that must have a subscriber first; implies `wait`.
        wait_count: how many subscribers each must have.
        wait_limit: seconds after which waiting is an error.
        folder_rate: frames per second of a folder.
        progress: show a bar with the time left on stderr.

    Returns:
        0.

    Raises:
        ValueError: PlayError or BagError with one sentence.
    """
    renamed = dict(_split_remap(text) for text in remap)
    context = Context()
    with open_source(bag, folder_rate) as source, terminable():
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = Node("player", context=context, enable_rosout=False)
            player = Player(source, node, topics, renamed, rate, start, clock)
            if isinstance(source, Bag) and source.cut_off:
                print(f"{bag}: breaks off; what comes before is played", file=sys.stderr)
            if player.skipped:
                skipped = ", ".join(player.skipped[:5]) + (" …" if player.skipped[5:] else "")
                print(f"not played, type not installed: {skipped}", file=sys.stderr)
            if wait or wait_for:
                player.wait_for_subscribers(wait_for, wait_limit, wait_count)
            length_s = (source.end_ns - player.start_ns) * 1e-9
            with _bar(Path(bag).name, length_s, rate, progress) as on_progress:
                player.play_once(on_progress)
                while loop:
                    player.play_once(on_progress)
            player.drain()
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            rclpy.shutdown(context=context)
    return 0


def _split_remap(text: str) -> tuple[str, str]:
    name, mark, other = text.partition(":=")
    if not (mark and name and other):
        raise PlayError(f"remap: expected FROM:=TO, got {text!r}")
    return name, other


class terminable:
    """SIGTERM ends like Ctrl-C; the handlers of before come back."""

    def __enter__(self) -> None:
        self._before: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():
            signals = (signal.SIGINT, signal.SIGTERM)
            self._before = [(s, signal.getsignal(s)) for s in signals]
            for s in signals:
                signal.signal(s, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)


class _bar:
    """A progress bar with the time left, in wall seconds."""

    def __init__(self, name: str, length_s: float, rate: float, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.1f} / {task.total:.1f} s, left"),
            TimeRemainingColumn(compact=True),
        )
        console = Console(stderr=True)
        shown = shown and console.is_terminal
        self._progress = Progress(*columns, console=console, disable=not shown)
        self._task = self._progress.add_task(f"{name} × {rate:g}", total=max(length_s, 1e-3))

    def __enter__(self) -> Callable[[float], None]:
        self._progress.__enter__()
        return lambda seconds: self._progress.update(self._task, completed=seconds)

    def __exit__(self, *exception: Any) -> None:
        self._progress.__exit__(*exception)


def main(args: Sequence[str] | None = None) -> int:
    """`python -m mde_ros.nodes.player`: play() with its keywords as flags; 2 on a user's error."""
    parser = argparse.ArgumentParser(description="Play a bag onto its topics.")
    parser.add_argument("bag")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--topics", nargs="+")
    parser.add_argument("--remap", nargs="+", default=[])
    parser.add_argument("--no-clock", dest="clock", action="store_false")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--wait-for", nargs="+", default=[])
    parser.add_argument("--wait-count", type=int, default=1)
    parser.add_argument("--wait-limit", type=float, default=math.inf)
    parser.add_argument("--folder-rate", type=float, default=10.0)
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    try:
        return play(**vars(parser.parse_args(args)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
