"""What belongs to each image of a bag: its camera, and depth, scan and mask nearest in time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import SCAN, camera_of, stamp_ns
from mde_ros.datasets.bag_topics import LIDAR, Topics, first_message
from mde_ros.datasets.bag_transforms import add_transforms, sensor_pose, static_tree
from mde_ros.datasets.scans import Returns, ScanError, cloud_returns, scan_returns
from mde_ros.datasets.transform_tree import TransformError
from mde_ros.frame import Camera

PATIENCE_NS = 1_000_000_000  # of bag time that an image waits for what belongs to it
TF_PATIENCE_NS = 250_000_000  # and for transforms of its time
EXTRAPOLATION_S = 0.05  # that transforms may be away at either end of a bag
HOPELESS = 300  # images that all lack what they need before it is given up


@dataclass
class Timed:
    """A message with its time in the log and the time of what it says, nanoseconds."""

    log_ns: int
    stamp_ns: int
    message: Any


@dataclass(frozen=True, eq=False)
class Sweep:
    """The returns of a LiDAR message, and the stamp that their seconds count from."""

    frame_id: str
    stamp_ns: int
    returns: Returns


@dataclass
class Placed:
    """A message of another sensor, and where that was as the image's camera sees it.

    Attributes:
        T_first, T_last: T_image_sensor when the sweep began and ended, the image at its own time;
            None for depth whose place is not known.
    """

    timed: Timed
    T_first: np.ndarray | None = None
    T_last: np.ndarray | None = None


@dataclass
class Pair:
    """An image and what belongs to it."""

    image: Timed
    camera: Camera
    truth: Placed | None
    scan: Placed | None
    mask: Timed | None


@dataclass(frozen=True, eq=False)
class Rules:
    """How to pair.

    Attributes:
        tolerance_ns: topic of truth, scan or mask → largest difference in time from the image.
        T_image_sensor: topic → its sensor's pose, where the transform tree is not to tell it.
        needed: topics without which no image is of use.
    """

    tolerance_ns: dict[str, int]
    T_image_sensor: dict[str, np.ndarray]
    needed: frozenset[str]


class Notes:
    """What went wrong, how often, and the first case of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def clear(self) -> None:
        """Begin anew."""
        self.counts.clear()
        self.examples.clear()

    def add(self, what: str, example: str) -> None:
        """One more case."""
        self.counts[what] += 1
        self.examples.setdefault(what, example)

    def sentences(self) -> list[str]:
        """One for each kind, the most frequent first."""
        return [f"{n} {what}: {self.examples[what]}" for what, n in self.counts.most_common()]


def read(bag: Bag, topic: str, log_ns: int, raw: bytes) -> Timed:
    """A stored message, decoded; that of a LiDAR as the Sweep that it is, timed by its middle.

    Raises:
        scans.ScanError: when a LiDAR's message contradicts itself or has no returns.
    """
    message = bag.decode(topic, raw)
    stamp = stamp_ns(message.header, log_ns)
    kind = bag.topics[topic].type
    if kind not in LIDAR:
        return Timed(log_ns, stamp, message)
    returns = scan_returns(message) if kind == SCAN else cloud_returns(message)
    if not len(returns.points):
        raise ScanError("expected returns within its range, got none")
    middle_s = sum(returns.sweep_s) / 2
    sweep = Sweep(message.header.frame_id, stamp, returns)
    return Timed(log_ns, stamp + round(middle_s * 1e9), sweep)


class _Track:
    """The last messages of a topic, to be asked for the one of a stamp."""

    def __init__(self, first: Timed | None = None) -> None:
        self.recent: deque[Timed] = deque([first] if first else [], maxlen=64)

    def settled(self, stamp: int) -> bool:
        """Whether nothing nearer to this stamp can come any more."""
        return bool(self.recent) and self.recent[-1].stamp_ns >= stamp

    def nearest(self, stamp: int) -> Timed | None:
        return min(self.recent, key=lambda m: abs(m.stamp_ns - stamp), default=None)

    def forget(self, before_ns: int) -> None:
        while len(self.recent) > 1 and self.recent[1].stamp_ns < before_ns:
            self.recent.popleft()


class Pairs:
    """One pass through a bag: images in log order, each as soon as what belongs to it is known.

    Args:
        bag: an open bag.
        topics: its topics.
        rules: what may be paired.
        notes: told of images that lack something, and of messages that are refused.
    """

    def __init__(self, bag: Bag, topics: Topics, rules: Rules, notes: Notes) -> None:
        self._bag, self._topics, self._rules, self._notes = bag, topics, rules, notes
        self._tree = static_tree(bag)
        info = first_message(bag, topics.camera_info)
        self._infos = _Track(Timed(bag.start_ns, stamp_ns(info.header, bag.start_ns), info))
        # A camera_info that comes once, or now and then, holds until the next.
        images = bag.topics[topics.image].count
        self._sparse = bag.topics[topics.camera_info].count * 2 < images
        self._camera: tuple[Any, Camera] | None = None
        self._tracks = {t: _Track() for t in (topics.truth, topics.scan, topics.mask) if t}
        self._placed = [t for t in (topics.truth, topics.scan) if t]
        self._transforms = set(topics.transforms if self._placed else ())
        self._images = 0
        self._lacking: dict[str, str] = {}  # needed topic that no image has had, the last reason

    def __iter__(self) -> Iterator[Pair]:
        topics = self._topics
        waiting: deque[Timed] = deque()
        self._lacking = dict.fromkeys(self._rules.needed, "")
        wanted = {topics.image, topics.camera_info, *self._tracks, *self._transforms}
        for topic, log_ns, raw in self._bag.messages(sorted(wanted)):
            if topic in self._transforms:
                for error in add_transforms(self._tree, self._bag.decode(topic, raw)):
                    self._notes.add("transforms refused", error)
            else:
                try:
                    timed = read(self._bag, topic, log_ns, raw)
                except ScanError as error:
                    self._notes.add(f"messages of {topic} refused", str(error))
                    continue
                if topic == topics.image:
                    waiting.append(timed)
                else:
                    track = self._infos if topic == topics.camera_info else self._tracks[topic]
                    track.recent.append(timed)
            while waiting and self._ready(waiting[0], log_ns):
                yield self._pair(waiting.popleft())
        while waiting:
            yield self._pair(waiting.popleft())
        self._give_up_after(1)

    def _ready(self, image: Timed, now_ns: int) -> bool:
        """Whether waiting longer would change nothing, or is in vain."""
        waited_ns = now_ns - image.log_ns
        if waited_ns > PATIENCE_NS:
            return True
        if not (self._sparse or self._infos.settled(image.stamp_ns)):
            return False
        if not all(track.settled(image.stamp_ns) for track in self._tracks.values()):
            return False
        if not self._transforms or waited_ns > TF_PATIENCE_NS:
            return True
        near = {topic: self._nearest(topic, image) for topic in self._placed}
        try:
            found = [self._place(t, image, timed, 0.0)[1] for t, timed in near.items() if timed]
        except TransformError:
            return False
        return not any(found)

    def _pair(self, image: Timed) -> Pair:
        topics = self._topics
        info = self._infos.recent[-1] if self._sparse else self._infos.nearest(image.stamp_ns)
        assert info is not None  # it holds the bag's first from the start
        if self._camera is None or self._camera[0] is not info.message:
            self._camera = info.message, camera_from(self._bag, topics.camera_info, info.message)
        self._images += 1
        pair = Pair(
            image,
            self._camera[1],
            self._found(topics.truth, "truth", image),
            self._found(topics.scan, "points", image),
            self._nearest(topics.mask, image) if topics.mask else None,
        )
        self._give_up_after(HOPELESS)
        for topic, track in self._tracks.items():
            track.forget(image.stamp_ns - self._rules.tolerance_ns[topic])
        return pair

    def _nearest(self, topic: str, image: Timed) -> Timed | None:
        timed = self._tracks[topic].nearest(image.stamp_ns)
        limit_ns = self._rules.tolerance_ns[topic]
        return timed if timed and abs(timed.stamp_ns - image.stamp_ns) <= limit_ns else None

    def _found(self, topic: str | None, what: str, image: Timed) -> Placed | None:
        """What is nearest in time, with its place; None, with a note, when there is none."""
        if topic is None:
            return None
        timed = self._nearest(topic, image)
        if timed is None:
            self._lack(topic, what, "none in time", self._too_far(topic, image))
            return None
        try:
            placed, unknown_motion = self._place(topic, image, timed, EXTRAPOLATION_S)
        except TransformError as error:
            # Depth may be in the camera's own frame under another name: its size will tell.
            if isinstance(timed.message, Sweep) or error.reason != "frames not connected":
                self._lack(topic, what, error.reason, str(error))
                return None
            placed, unknown_motion = Placed(timed), None
        if unknown_motion:
            self._notes.add(f"images with {what} of a robot taken to stand", str(unknown_motion))
        self._lacking.pop(topic, None)
        return placed

    def _place(
        self, topic: str, image: Timed, timed: Timed, slack_s: float
    ) -> tuple[Placed, TransformError | None]:
        """A message with its place, and why motion between both times is not known, if so."""
        message, given = timed.message, self._rules.T_image_sensor.get(topic)
        camera = image.message.header.frame_id, image.stamp_ns
        if not isinstance(message, Sweep):
            frame = message.header.frame_id
            if given is None and frame and frame.lstrip("/") == camera[0].lstrip("/"):
                return Placed(timed, np.eye(4), np.eye(4)), None
            T, error = sensor_pose(self._tree, camera, (frame, timed.stamp_ns), given, slack_s)
            return Placed(timed, T, T), error
        poses = [
            sensor_pose(
                self._tree,
                camera,
                (message.frame_id, message.stamp_ns + round(seconds * 1e9)),
                given,
                slack_s,
            )
            for seconds in message.returns.sweep_s
        ]
        return Placed(timed, poses[0][0], poses[1][0]), poses[0][1] or poses[1][1]

    def _too_far(self, topic: str, image: Timed) -> str:
        nearest = self._tracks[topic].nearest(image.stamp_ns)
        if nearest is None:
            return f"{topic} has no messages near any image"
        away_s = abs(nearest.stamp_ns - image.stamp_ns) / 1e9
        clocks = "; are they stamped by different clocks?" if away_s > 1 else ""
        limit_s = self._rules.tolerance_ns[topic] / 1e9
        return f"the nearest of {topic} is {away_s:g} s away, more than {limit_s:g} s{clocks}"

    def _lack(self, topic: str, what: str, reason: str, example: str) -> None:
        self._notes.add(f"images without {what} ({reason})", example)
        if topic in self._lacking:
            self._lacking[topic] = example

    def _give_up_after(self, images: int) -> None:
        """Raise a BagError when so many images have come and none had something needed."""
        for topic, reason in self._lacking.items():
            if self._images >= images:
                raise BagError(
                    f"{self._bag.path}: no image has anything of {topic} so far: {reason}"
                )


def camera_from(bag: Bag, topic: str, info: Any) -> Camera:
    """The camera of a CameraInfo message.

    Raises:
        BagError: when it is not calibrated.
    """
    try:
        return camera_of(info)
    except ValueError as error:
        raise BagError(f"{bag.path}: {topic}: {error}") from None
