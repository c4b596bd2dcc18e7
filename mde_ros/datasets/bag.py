"""Bags as data sets: images with their camera and the depth measured nearest in time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.image.image import ImageError

from mde_ros.datasets import Sample
from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    TF,
    camera_of,
    depth_metres,
    image_rgb,
    is_depth,
    stamp_ns,
)
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import points_to_depth, pose, transform, unproject

PATIENCE_NS = 1_000_000_000  # of bag time that an image waits for its camera and its depth
LARGEST_TOLERANCE_NS = 150_000_000
SKIP = 32  # images that are passed over while streaming rather than sought

# ---- which topics belong together ----------------------------------------------------------------


def _nearest_by_name(topic: str, candidates: list[str]) -> list[str]:
    """The candidates whose path shares most with a topic, and of those the shortest."""

    def distance(other: str) -> tuple[int, int]:
        a, b = topic.strip("/").split("/"), other.strip("/").split("/")
        common = 0
        while common < min(len(a), len(b)) and a[common] == b[common]:
            common += 1
        return -common, len(b) - common

    best = min((distance(c) for c in candidates), default=None)
    return [c for c in candidates if distance(c) == best]


@dataclass(frozen=True)
class _Topics:
    """The topics of a bag that make samples."""

    image: str
    camera_info: str
    depth: str | None
    depth_info: str | None


def _choose_topics(
    bag: Bag, image: str | None, camera_info: str | None, depth: str | None
) -> _Topics:
    for name in (image, camera_info, depth):
        if name is not None:
            bag.topic(name)
    pictures = [t.name for t in bag.topics.values() if t.type in (IMAGE, COMPRESSED) and t.count]
    first = {name: _first(bag, name) for name in pictures}
    depths = [n for n in pictures if is_depth(first[n], n)]
    images = [n for n in pictures if n not in depths]
    if image is None:
        image = _only(bag, "image", _preferred(images, first), "--image-topic")
    if image is None:
        raise BagError(f"{bag.path}: there is no image in it; it has {bag.listed(bag.topics)}")
    infos = [t.name for t in bag.topics.values() if t.type == CAMERA_INFO and t.count]
    if camera_info is None:
        nearest = _nearest_by_name(image, infos)
        camera_info = _only(bag, "camera_info", nearest, "--camera-info-topic")
    if camera_info is None:
        raise BagError(
            f"{bag.path}: there is no sensor_msgs/msg/CameraInfo for {image} in it, so its depth"
            f" would have no scale; it has {bag.listed(bag.topics)}"
        )
    if depth is None:
        depth = _only(bag, "depth", _preferred(depths, first), "--depth-topic")
    depth_info = _nearest_by_name(depth, infos)[0] if depth else None
    return _Topics(image, camera_info, depth, depth_info)


def _first(bag: Bag, topic: str) -> Any:
    for _, _, raw in bag.messages([topic]):
        return bag.decode(topic, raw)
    raise BagError(f"{bag.path}: {topic} has no messages")


def _preferred(names: list[str], first: dict[str, Any]) -> list[str]:
    """Colour before grey, raw before the same topic compressed."""
    colour = [n for n in names if not getattr(first[n], "encoding", "").startswith("mono")]
    names = colour or names
    twins = {f"{n}/{s}" for n in names for s in ("compressed", "compressedDepth")}
    return [n for n in names if n not in twins]


def _only(bag: Bag, what: str, names: list[str], flag: str) -> str | None:
    if len(names) > 1:
        raise BagError(
            f"{bag.path}: there are several {what} topics, choose one with {flag}:"
            f" {', '.join(sorted(names))}"
        )
    return names[0] if names else None


# ---- pairing -------------------------------------------------------------------------------------


@dataclass
class _Timed:
    """A message with its time in the log and its own stamp."""

    log_ns: int
    stamp_ns: int
    message: Any


class _Track:
    """The last messages of a topic, to be asked for the one of a stamp."""

    def __init__(self, first: _Timed | None = None) -> None:
        self.recent: deque[_Timed] = deque([first] if first else [], maxlen=64)

    def settled(self, stamp: int) -> bool:
        """Whether nothing nearer to this stamp can come any more."""
        return bool(self.recent) and self.recent[-1].stamp_ns >= stamp

    def nearest(self, stamp: int) -> _Timed | None:
        return min(self.recent, key=lambda m: abs(m.stamp_ns - stamp), default=None)

    def forget(self, before_ns: int) -> None:
        while len(self.recent) > 1 and self.recent[1].stamp_ns < before_ns:
            self.recent.popleft()


@dataclass
class _Pair:
    image: _Timed
    camera: Camera
    depth: _Timed | None


class BagDataset:
    """Images of a bag with their camera and the depth that was measured nearest in time.

    Iterating, or indexing one after the other, streams the bag; other indexing seeks in it.

    Args:
        path: a bag.
        image_topic, camera_info_topic, depth_topic: to choose one of several; found by type and
            encoding otherwise.
        tolerance_s: largest difference between the stamps of an image and of its depth; by
            default one period of the depth topic, at most 0.15 s.

    Raises:
        BagError: when the bag cannot be read or lacks images, their camera_info or the topic.
    """

    def __init__(
        self,
        path: str | Path,
        image_topic: str | None = None,
        camera_info_topic: str | None = None,
        depth_topic: str | None = None,
        tolerance_s: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().stem
        with Bag(path) as bag:
            self.topics = _choose_topics(bag, image_topic, camera_info_topic, depth_topic)
            self._count = bag.topics[self.topics.image].count
            self._tolerance_ns = _tolerance_ns(bag, self.topics.depth, tolerance_s)
            info = _first(bag, self.topics.camera_info)
            self._first_info = _Timed(bag.start_ns, stamp_ns(info.header, bag.start_ns), info)
            self._registration = _Registration(bag, self.topics) if self.topics.depth else None
        self._index: list[_Pair] | None = None
        self._stream: tuple[int, Iterator[tuple[int, _Pair]]] | None = None  # and its next index
        self._last = -1  # the index that was asked for last

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(i, pair) for i, pair in self._streamed())

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        in_order, self._last = index == self._last + 1, index
        begin, stream = self._stream or (0, self._streamed())
        if index < begin and index < SKIP:
            begin, stream = 0, self._streamed()
        if index < begin or not (in_order or index < begin + SKIP):
            return self._seek(index)
        self._stream = (index + 1, stream)
        for i, pair in stream:
            if i == index:
                return self._sample(i, pair)
        raise BagError(f"{self.path}: {self.topics.image} has changed while it was read")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None}  # an open bag stays in its process

    def _streamed(self) -> Iterator[tuple[int, _Pair]]:
        with Bag(self.path) as bag:
            yield from enumerate(self._pairs(bag))

    def stamps_ns(self) -> list[int]:
        """The stamps of all images, in their order; the first call reads through the bag."""
        with Bag(self.path) as bag:
            return [pair.image.stamp_ns for pair in self._indexed(bag)]

    def _indexed(self, bag: Bag) -> list[_Pair]:
        if self._index is None:
            self._index = [_without_messages(p) for p in self._pairs(bag)]
        return self._index

    def _seek(self, index: int) -> Sample:
        with Bag(self.path) as bag:
            pair = self._indexed(bag)[index]
            image = _fetch(bag, self.topics.image, pair.image)
            depth = pair.depth and _fetch(bag, self.topics.depth or "", pair.depth)
            return self._sample(index, _Pair(image, pair.camera, depth))

    def _pairs(self, bag: Bag) -> Iterator[_Pair]:
        """Images in log order, each as soon as its camera and depth can be told."""
        topics = self.topics
        infos, depths = _Track(self._first_info), _Track()
        # A camera_info that comes once, or now and then, holds until the next.
        sparse = bag.topics[topics.camera_info].count * 2 < self._count
        waiting: deque[_Timed] = deque()
        paired = unpaired = 0
        last_info: tuple[Any, Camera] | None = None

        def emit(image: _Timed) -> _Pair:
            nonlocal paired, unpaired, last_info
            info = infos.recent[-1] if sparse else infos.nearest(image.stamp_ns)
            assert info is not None  # infos holds the bag's first from the start
            if last_info is None or last_info[0] is not info.message:
                last_info = info.message, _camera(self.path, topics.camera_info, info.message)
            depth = depths.nearest(image.stamp_ns)
            if depth and abs(depth.stamp_ns - image.stamp_ns) > self._tolerance_ns:
                depth = None
            paired, unpaired = paired + bool(depth), unpaired + (not depth)
            if topics.depth and unpaired == 100 and not paired:
                raise self._unpaired(image, depths)
            depths.forget(image.stamp_ns - self._tolerance_ns)
            return _Pair(image, last_info[1], depth)

        def ready(image: _Timed, now_ns: int) -> bool:
            if now_ns - image.log_ns > PATIENCE_NS:
                return True
            camera = sparse or infos.settled(image.stamp_ns)
            return camera and (topics.depth is None or depths.settled(image.stamp_ns))

        wanted = [t for t in (topics.image, topics.camera_info, topics.depth) if t]
        for topic, log_ns, raw in bag.messages(wanted):
            message = bag.decode(topic, raw)
            timed = _Timed(log_ns, stamp_ns(message.header, log_ns), message)
            if topic == topics.image:
                waiting.append(timed)
            elif topic == topics.camera_info:
                infos.recent.append(timed)
            else:
                depths.recent.append(timed)
            while waiting and ready(waiting[0], log_ns):
                yield emit(waiting.popleft())
        while waiting:
            yield emit(waiting.popleft())
        if topics.depth and unpaired and not paired:
            raise self._unpaired(timed, depths)

    def _unpaired(self, image: _Timed, depths: _Track) -> BagError:
        depth = depths.nearest(image.stamp_ns)
        if depth is None:
            return BagError(f"{self.path}: {self.topics.depth} has no messages near any image")
        return BagError(
            f"{self.path}: no image has a depth of {self.topics.depth} within"
            f" {self._tolerance_ns / 1e9:g} s, the nearest is"
            f" {abs(depth.stamp_ns - image.stamp_ns) / 1e9:g} s away; are they stamped by"
            " different clocks?"
        )

    def _sample(self, index: int, pair: _Pair) -> Sample:
        where = f"{self.path}: image {index} of {self.topics.image}"
        try:
            image = image_rgb(pair.image.message)
            frame = Frame(image, pair.camera, stamp_ns=pair.image.stamp_ns)
            truth_m = None
            if pair.depth and self._registration:
                truth_m = self._registration(pair.image.message, pair.camera, pair.depth.message)
        except (ImageError, ValueError, cv2.error) as error:
            raise BagError(f"{where}: {error}") from None
        return Sample(frame, truth_m, f"{self.name}/{index:06d}")


def _camera(path: Path, topic: str, info: Any) -> Camera:
    try:
        return camera_of(info)
    except ValueError as error:
        raise BagError(f"{path}: {topic}: {error}") from None


def _tolerance_ns(bag: Bag, depth: str | None, tolerance_s: float | None) -> int:
    if tolerance_s is not None:
        return round(tolerance_s * 1e9)
    gaps = bag.topics[depth].count - 1 if depth else 0
    period_ns = (bag.end_ns - bag.start_ns) // gaps if gaps > 0 else LARGEST_TOLERANCE_NS
    return min(period_ns, LARGEST_TOLERANCE_NS)


def _without_messages(pair: _Pair) -> _Pair:
    depth = pair.depth and replace(pair.depth, message=None)
    return _Pair(replace(pair.image, message=None), pair.camera, depth)


def _fetch(bag: Bag, topic: str, wanted: _Timed) -> _Timed:
    for _, log_ns, raw in bag.messages([topic], wanted.log_ns, wanted.log_ns + 1):
        message = bag.decode(topic, raw)
        if stamp_ns(message.header, log_ns) == wanted.stamp_ns:
            return replace(wanted, message=message)
    raise BagError(f"{bag.path}: {topic} has changed while it was read")


class _Registration:
    """Measured depth → depth at the pixels of the image, lens distortion and all.

    Depth of the image's own frame and camera is taken as it is. Otherwise it is projected: with
    /tf_static, or with the `…/tf/N` topics of the RealSense SDK.
    """

    def __init__(self, bag: Bag, topics: _Topics) -> None:
        assert topics.depth is not None
        self.path, self.topics = bag.path, topics
        self.units_per_m = _units_per_m(bag, topics.depth)
        self.depth_camera: Camera | None = None
        if topics.depth_info and topics.depth_info != topics.camera_info:
            self.depth_camera = _camera(bag.path, topics.depth_info, _first(bag, topics.depth_info))
        self.T_image_depth = _sdk_extrinsics(bag, topics.image, topics.depth)
        self.edges = _static_transforms(bag)

    def __call__(self, image: Any, camera: Camera, message: Any) -> np.ndarray:
        depth_m = depth_metres(message, self.units_per_m)
        same_size = depth_m.shape == (camera.height, camera.width)
        own = self.depth_camera
        same_optics = same_size and (own is None or np.allclose(own.K, camera.K, rtol=1e-3))
        T = self.T_image_depth
        a, b = image.header.frame_id, message.header.frame_id
        if T is None:
            T = _path_transform(self.edges, a, b)
        if same_optics and (T is None or np.allclose(T, np.eye(4), atol=1e-6)):
            return depth_m
        if T is None or own is None:
            raise BagError(
                f"{self.path}: depth on {self.topics.depth} is {_size(depth_m)} in frame {b!r}, the"
                f" image {camera.width}x{camera.height} in frame {a!r}, and there is no"
                f" {'transform between them' if own else 'camera_info of the depth'} in the bag"
            )
        if depth_m.shape != (own.height, own.width):
            raise BagError(
                f"{self.path}: depth on {self.topics.depth} is {_size(depth_m)}, but"
                f" {self.topics.depth_info} says {own.width}x{own.height}"
            )
        return project_depth(depth_m, own, camera, T)


def project_depth(
    depth_m: np.ndarray, source: Camera, target: Camera, T_target_source: np.ndarray
) -> np.ndarray:
    """Depth (h, w) of one camera → depth (H, W) at the pixels of another, 0 = none.

    The nearest point wins a pixel. Where the target has finer pixels, a measurement covers as
    many of them as one pixel of the source does. The source is taken as undistorted.
    """
    points = unproject(depth_m, source)[depth_m > 0]
    size = (target.width, target.height)
    finer = max(1.0, target.focal_px / source.focal_px)
    coarse = target.undistorted().resized(*(max(1, round(s / finer)) for s in size))
    depth = points_to_depth(transform(T_target_source, points), coarse)
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    if target.is_distorted:
        depth = cv2.remap(depth, *_ideal_pixels(target), cv2.INTER_NEAREST)
    return depth


def _ideal_pixels(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a distorted image lies in the undistorted one: x, y (H, W) float32."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    pixels = np.stack([x.ravel(), y.ravel()], 1)[:, None]
    if camera.distortion_model == "equidistant":
        ideal = cv2.fisheye.undistortPoints(pixels, camera.K, camera.D[:4], P=camera.K)
    else:
        ideal = cv2.undistortPoints(pixels, camera.K, camera.D, P=camera.K)
    maps = ideal.astype(np.float32).reshape(camera.height, camera.width, 2)
    return maps[..., 0], maps[..., 1]


def _size(depth: np.ndarray) -> str:
    return f"{depth.shape[1]}x{depth.shape[0]}"


def _units_per_m(bag: Bag, depth: str) -> float:
    """1000, unless the RealSense SDK has recorded another unit."""
    sensor = re.match(r"/device_\d+/sensor_\d+", depth)
    topic = f"{sensor[0]}/option/Depth Units/value" if sensor else ""
    return round(1 / _first(bag, topic).data, 3) if topic in bag.topics else 1000.0


def _sdk_extrinsics(bag: Bag, image: str, depth: str) -> np.ndarray | None:
    """T_image_depth from the RealSense SDK's `…/tf/N`, which map the reference into a stream."""
    T = []
    for topic in (image, depth):
        stream = topic.removesuffix("/image/data")
        names = [n for n in bag.topics if n.startswith(f"{stream}/tf/")]
        if len(names) != 1:
            return None
        message = _first(bag, names[0])
        T.append(_pose(message))
    return T[0] @ np.linalg.inv(T[1])


def _pose(message: Any) -> np.ndarray:
    t, q = message.translation, message.rotation
    return pose(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))


def _static_transforms(bag: Bag) -> dict[str, dict[str, np.ndarray]]:
    """{frame a: {frame b: T_a_b}} from /tf_static, both ways."""
    edges: dict[str, dict[str, np.ndarray]] = {}
    for name in [t.name for t in bag.topics.values() if t.name == "/tf_static" and t.type == TF]:
        for _, _, raw in bag.messages([name]):
            for item in bag.decode(name, raw).transforms:
                parent, child = item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")
                T = _pose(item.transform)
                edges.setdefault(parent, {})[child] = T
                edges.setdefault(child, {})[parent] = np.linalg.inv(T)
    return edges


def _path_transform(
    edges: dict[str, dict[str, np.ndarray]], target: str, source: str
) -> np.ndarray | None:
    """T_target_source along the tree; identity for the same frame, None without a path."""
    target, source = target.lstrip("/"), source.lstrip("/")
    if not target or not source:
        return None
    reached = {target: np.eye(4)}
    queue = deque([target])
    while queue and source not in reached:
        here = queue.popleft()
        for there, T in edges.get(here, {}).items():
            if there not in reached:
                reached[there] = reached[here] @ T
                queue.append(there)
    return reached.get(source)
