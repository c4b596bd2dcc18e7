"""Bags as data sets: images with their camera, and depth, scan and mask nearest in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.image.image import ImageError

from mde_ros.datasets import Sample
from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import image_rgb, mask_of
from mde_ros.datasets.bag_pairs import Notes, Pair, Pairs, Placed, Rules, Sweep, Timed, read
from mde_ros.datasets.bag_registration import DepthRegistration, points_to_image_depth
from mde_ros.datasets.bag_topics import LIDAR, Topics, choose_topics, first_message
from mde_ros.datasets.bag_transforms import sdk_extrinsics
from mde_ros.frame import Frame
from mde_ros.geometry import pose

LARGEST_TOLERANCE_NS = 150_000_000
MASK_TOLERANCE_NS = 10_000_000  # a mask is made of its image and has its stamp
SKIP = 32  # images that are passed over while streaming rather than sought


class BagDataset:
    """Images of a bag with their camera, and what was measured nearest in time.

    Iterating, or indexing one after the other, streams the bag; other indexing seeks in it.

    Topics are found by type, encoding and name. The truth is a depth image or, without any, the
    points of a LiDAR that is not the scan, seen from the camera. Scans become points in the
    camera's optical frame: placed by `laser_to_camera` or by /tf and /tf_static, and, where these
    know a frame in which the robot moves (odom, map), each return from where the robot was then.

    Args:
        path: a bag.
        image_topic, camera_info_topic, truth_topic, scan_topic, mask_topic: to choose one of
            several; "none" leaves truth, scan or mask out.
        tolerance_s: largest difference in time between an image and its truth; by default one
            period of the truth, at most 0.15 s.
        max_scan_age: the same for a scan, from the middle of its sweep, seconds.
        laser_to_camera: x y z qx qy qz qw of the LiDAR in the camera's optical frame (of the scan,
            and of a truth measured in the same frame or without any scan).

    Raises:
        BagError: when the bag cannot be read or lacks images, their camera_info or the topic.
    """

    def __init__(
        self,
        path: str | Path,
        image_topic: str | None = None,
        camera_info_topic: str | None = None,
        truth_topic: str | None = None,
        scan_topic: str | None = None,
        mask_topic: str | None = None,
        tolerance_s: float | None = None,
        max_scan_age: float = 0.2,
        laser_to_camera: Sequence[float] | str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().stem
        asked = image_topic, camera_info_topic, truth_topic, scan_topic, mask_topic
        with Bag(path) as bag:
            self.topics = topics = choose_topics(bag, *asked)
            self._count = bag.topics[topics.image].count
            self._rules = _rules(bag, self.topics, tolerance_s, max_scan_age, laser_to_camera)
            depth = topics.truth and bag.topics[topics.truth].type not in LIDAR
            self._registration = DepthRegistration(bag, topics) if depth else None
            if bag.cut_off:
                seconds = (bag.end_ns - bag.start_ns) / 1e9
                topics.notes.append(f"{path}: breaks off; the {seconds:.1f} s before are read")
        self._notes = Notes()
        self._index: list[Pair] | None = None
        self._broken: BagError | None = None  # where the bag breaks off
        self._stream: tuple[int, Iterator[tuple[int, Pair]]] | None = None  # and its next index
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
        raise self._gone()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None}  # an open bag stays in its process

    def notes(self) -> list[str]:
        """What images have gone without since the bag was begun to be read, and why."""
        return [*self.topics.notes, *self._notes.sentences()]

    def stamps_ns(self) -> list[int]:
        """The stamps of all images, in their order; the first call reads through the bag.

        Raises:
            BagError: where the bag breaks off.
        """
        with Bag(self.path) as bag:
            stamps = [pair.image.stamp_ns for pair in self._indexed(bag)]
        if self._broken:
            raise self._broken
        return stamps

    def _streamed(self) -> Iterator[tuple[int, Pair]]:
        self._notes.clear()
        with Bag(self.path) as bag:
            try:
                yield from enumerate(Pairs(bag, self.topics, self._rules, self._notes))
            except BagError as error:
                self._broken = error
                raise

    def _indexed(self, bag: Bag) -> list[Pair]:
        """All pairs without their messages, or those before the place where the bag breaks off."""
        if self._index is None:
            self._index = []
            self._notes.clear()
            try:
                for pair in Pairs(bag, self.topics, self._rules, self._notes):
                    self._index.append(_without_messages(pair))
            except BagError as error:
                self._broken = error
        return self._index

    def _seek(self, index: int) -> Sample:
        with Bag(self.path) as bag:
            pairs = self._indexed(bag)
            if index >= len(pairs):
                raise self._gone()
            return self._sample(index, self._filled(bag, pairs[index]))

    def _gone(self) -> BagError:
        return self._broken or BagError(f"{self.path}: {self.topics.image} has changed meanwhile")

    def _filled(self, bag: Bag, pair: Pair) -> Pair:
        """A pair of the index with its messages, read again."""
        topics = self.topics

        def fetch(topic: str | None, wanted: Timed) -> Timed:
            for name, log_ns, raw in bag.messages([topic or ""], wanted.log_ns, wanted.log_ns + 1):
                timed = read(bag, name, log_ns, raw)
                if timed.stamp_ns == wanted.stamp_ns:
                    return timed
            raise BagError(f"{bag.path}: {topic} has changed meanwhile")

        def fetch_placed(topic: str | None, wanted: Placed) -> Placed:
            return replace(wanted, timed=fetch(topic, wanted.timed))

        return Pair(
            fetch(topics.image, pair.image),
            pair.camera,
            pair.truth and fetch_placed(topics.truth, pair.truth),
            pair.scan and fetch_placed(topics.scan, pair.scan),
            pair.mask and fetch(topics.mask, pair.mask),
        )

    def _sample(self, index: int, pair: Pair) -> Sample:
        camera = pair.camera
        try:
            image = image_rgb(pair.image.message)
            points = None if pair.scan is None else _points(pair.scan)
            frame = Frame(image, camera, points, pair.image.stamp_ns)
            truth_m = self._truth_m(pair)
            moving = None if pair.mask is None else mask_of(pair.mask.message)
            if moving is not None and moving.shape != image.shape[:2]:
                raise ValueError(
                    f"its mask on {self.topics.mask} is {moving.shape[1]}x{moving.shape[0]}, the"
                    f" image {camera.width}x{camera.height}"
                )
        except (ImageError, ValueError, cv2.error) as error:
            where = f"{self.path}: image {index} of {self.topics.image}"
            raise BagError(f"{where}: {error}") from None
        return Sample(frame, truth_m, f"{self.name}/{index:06d}", moving)

    def _truth_m(self, pair: Pair) -> np.ndarray | None:
        if pair.truth is None:
            return None
        if self._registration is None:
            return points_to_image_depth(_points(pair.truth), pair.camera)
        message, image = pair.truth.timed.message, pair.image.message
        return self._registration(message, image, pair.camera, pair.truth.T_first)


def _points(placed: Placed) -> np.ndarray:
    """A LiDAR's returns (N, 3) in the image's optical frame."""
    sweep: Sweep = placed.timed.message
    assert placed.T_first is not None and placed.T_last is not None  # or it were not placed
    return sweep.returns.seen_from(placed.T_first, placed.T_last)


def _without_messages(pair: Pair) -> Pair:
    def bare(timed: Timed) -> Timed:
        return replace(timed, message=None)

    return replace(
        pair,
        image=bare(pair.image),
        truth=pair.truth and replace(pair.truth, timed=bare(pair.truth.timed)),
        scan=pair.scan and replace(pair.scan, timed=bare(pair.scan.timed)),
        mask=pair.mask and bare(pair.mask),
    )


def _rules(
    bag: Bag,
    topics: Topics,
    tolerance_s: float | None,
    max_scan_age: float,
    laser_to_camera: Sequence[float] | str | None,
) -> Rules:
    """How the topics of a bag are paired."""
    tolerance_ns, poses, needed = {}, {}, set()
    if topics.truth:
        tolerance_ns[topics.truth] = _tolerance_ns(bag, topics.truth, tolerance_s)
        if bag.topics[topics.truth].type not in LIDAR:
            needed.add(topics.truth)
            sdk = sdk_extrinsics(bag, topics.image, topics.truth)
            if sdk is not None:
                poses[topics.truth] = sdk
    if topics.scan:
        tolerance_ns[topics.scan] = round(max_scan_age * 1e9)
    if topics.mask:
        tolerance_ns[topics.mask] = MASK_TOLERANCE_NS
    needed |= {t for t in (topics.truth, topics.scan) if t in topics.wanted}
    if laser_to_camera is not None:
        T_camera_laser = _given_pose(laser_to_camera)
        lidars = [t for t in (topics.scan, topics.truth) if t and bag.topics[t].type in LIDAR]
        frames = {t: first_message(bag, t).header.frame_id for t in lidars}
        poses.update({t: T_camera_laser for t in lidars if frames[t] == frames[lidars[0]]})
    return Rules(tolerance_ns, poses, frozenset(needed))


def _given_pose(numbers: Sequence[float] | str) -> np.ndarray:
    """x y z qx qy qz qw → (4, 4)."""
    words = numbers.split() if isinstance(numbers, str) else numbers
    try:
        x, y, z, *quaternion = (float(w) for w in words)
        if len(quaternion) == 4 and np.isfinite((x, y, z)).all():
            return pose(np.array([x, y, z]), np.array(quaternion))
    except ValueError:
        pass
    raise BagError(
        "laser_to_camera: expected x y z qx qy qz qw, metres and a quaternion, got"
        f" {' '.join(map(str, words))!r}"
    )


def _tolerance_ns(bag: Bag, truth: str, tolerance_s: float | None) -> int:
    if tolerance_s is not None:
        return round(tolerance_s * 1e9)
    gaps = bag.topics[truth].count - 1
    period_ns = (bag.end_ns - bag.start_ns) // gaps if gaps > 0 else LARGEST_TOLERANCE_NS
    return min(period_ns, LARGEST_TOLERANCE_NS)
