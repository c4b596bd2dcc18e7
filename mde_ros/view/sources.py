"""What recordings hold, put into a scene frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.datasets import is_bag, open_dataset
from mde_ros.datasets.bag import BagDataset
from mde_ros.datasets.bag_file import Bag, FolderBag
from mde_ros.datasets.bag_messages import ImageError, camera_of, depth_metres, stamp_ns
from mde_ros.datasets.bag_topics import first_message
from mde_ros.datasets.bag_transforms import add_transforms, static_tree
from mde_ros.datasets.transform_tree import TransformError
from mde_ros.evaluation.pictures import Model, make_picture
from mde_ros.view.scene import Scene

# What our node publishes, as in nodes/depth_node.py.
OUR_DEPTH, OUR_INFO, OUR_POINTS = "depth/image_rect", "depth/camera_info", "points"
OUR_PICTURES = (OUR_DEPTH, "depth/colour", "uncertainty", "saliency")
WAIT_NS = 250_000_000  # that transforms are read ahead: they may come in any order
SLACK_S = 0.05  # that transforms may be away at either end of a bag


def open_source(
    source: str, models: Mapping[str, Model], max_frames: int, topics: Mapping[str, Any]
) -> Iterator[Samples | Published]:
    """What there is to show in a bag or folder, opened.

    Raises:
        DatasetError: when it is neither, or lacks what it needs.
    """
    path = Path(source).expanduser()
    if not (path.exists() and is_bag(path)):
        # As `mde demo` plays a folder, so that its output.mcap fits on the same time line.
        yield Samples(open_dataset(path, **topics), models, max_frames, FolderBag.START_NS)
        return
    with Bag(path) as bag:
        pictures = [n for n, t in bag.topics.items() if t.type.endswith("Image")]
    ours = [n for n in pictures if n.endswith(OUR_DEPTH) and n not in topics.values()]
    if not pictures or any(not n.endswith(OUR_PICTURES) for n in pictures):
        dataset: Any = open_dataset(path, **topics)
        # What a node published is no measurement, though it may be all the depth in the bag.
        measured = dataset.topics.truth not in ours
        yield Samples(dataset, models, max_frames, measured=measured)
    for depth in ours:
        yield Published(path, depth, max_frames)


class Samples:
    """The samples of a data set, with what the models say to them."""

    def __init__(
        self,
        dataset: Any,
        models: Mapping[str, Model],
        max_frames: int,
        start_ns: int = 0,
        measured: bool = True,
    ) -> None:
        self.dataset, self.models = dataset, models
        self.start_ns, self.measured = start_ns, measured
        self.indices = range(0, len(dataset), _step(len(dataset), max_frames))
        self.problems: list[str] = []

    def __len__(self) -> int:
        return len(self.indices)

    def frames(self, scene: Scene) -> Iterator[None]:
        """Put one frame after the other into the scene."""
        way = Way(self.dataset) if isinstance(self.dataset, BagDataset) else None
        for i in self.indices:
            try:
                sample = self.dataset[i]
                if not self.measured:
                    sample = replace(sample, truth_m=None)
                picture = make_picture("", sample, self.models)
                T_world_camera = way(sample.frame.stamp_ns) if way else self._pose(i)
            except (ValueError, OSError) as error:
                self.problems.append(str(error))
            else:
                scene.at(self.start_ns + sample.frame.stamp_ns)
                scene.picture(picture, T_world_camera)
                if sample.frame.points is not None:
                    scene.scan(sample.frame.points)
            yield

    def _pose(self, index: int) -> np.ndarray | None:
        return self.dataset.pose(index) if hasattr(self.dataset, "pose") else None


class Way:
    """Where a bag's camera is in the frame in which the robot moves (odom, map), by its /tf."""

    def __init__(self, dataset: BagDataset) -> None:
        topics = dataset.topics
        with Bag(dataset.path) as bag:
            self.tree, self.camera = static_tree(bag), first_message(bag, topics.image).header
        self.transforms = self._read(dataset.path, topics.transforms)
        self.known_ns = 0

    def __call__(self, stamp: int) -> np.ndarray | None:
        """T_fixed_camera (4, 4) at a stamp; stamps come in order. None where it is not known."""
        while self.known_ns < stamp + WAIT_NS and (read := next(self.transforms, None)):
            self.known_ns = max(self.known_ns, read)
        fixed = self.tree.fixed_frame(self.camera.frame_id)
        if fixed is None:
            return None
        with suppress(TransformError):
            return self.tree.lookup(fixed, self.camera.frame_id, stamp, slack_s=SLACK_S)
        return None

    def _read(self, path: Path, topics: list[str]) -> Iterator[int]:
        """Take the transforms in, message by message; the latest stamp of each."""
        with Bag(path) as bag:
            for topic, log_ns, raw in bag.messages(topics):
                message = bag.decode(topic, raw)
                add_transforms(self.tree, message)
                yield max((stamp_ns(t.header) for t in message.transforms), default=log_ns)


class Published:
    """What our node had published into a bag: depth, its camera and its cloud."""

    def __init__(self, path: Path, depth: str, max_frames: int) -> None:
        self.path, self.depth = path, depth
        base = depth.removesuffix(OUR_DEPTH)
        with Bag(path) as bag:
            self.topics = [
                n for n in (depth, base + OUR_INFO, base + OUR_POINTS) if n in bag.topics
            ]
            count = bag.topics[depth].count
        self.indices = range(0, count, _step(count, max_frames))
        self.problems: list[str] = []

    def __len__(self) -> int:
        return len(self.indices)

    def frames(self, scene: Scene) -> Iterator[None]:
        """Put one message after the other into the scene; yields at each depth."""
        seen = dict.fromkeys(self.topics, 0)
        with Bag(self.path) as bag:
            for topic, log_ns, raw in bag.messages(self.topics):
                seen[topic] += 1
                if seen[topic] - 1 not in self.indices:
                    continue
                message = bag.decode(topic, raw)
                scene.at(stamp_ns(message.header, log_ns))
                try:
                    self._show(topic, message, scene)
                except (ValueError, ImageError) as error:
                    self.problems.append(f"{self.path}: {topic}: {error}")
                if topic == self.depth:
                    yield

    def _show(self, topic: str, message: Any, scene: Scene) -> None:
        if topic == self.depth:
            scene.depth("recorded", depth_metres(message))
        elif topic.endswith(OUR_INFO):
            scene.lens(camera_of(message))
        else:
            scene.cloud("recorded", *_coloured(message))


def _step(count: int, most: int) -> int:
    return max(1, -(-count // most)) if most else 1


def _coloured(message: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """PointCloud2 as our node makes it → points (N, 3) float32, colours (N, 3) uint8 or None."""
    kinds = {"x": "<f4", "y": "<f4", "z": "<f4", "rgb": "<u4"}
    offsets = {f.name: f.offset for f in message.fields if f.name in kinds}
    layout: Any = {
        "names": list(offsets),
        "formats": [kinds[name] for name in offsets],
        "offsets": list(offsets.values()),
        "itemsize": message.point_step,
    }
    cloud: Any = np.frombuffer(message.data, np.dtype(layout))
    cloud = cloud[np.isfinite(cloud["z"])]
    points = np.stack([cloud[axis] for axis in "xyz"], 1)
    if "rgb" not in offsets:
        return points, None
    colours = np.stack([cloud["rgb"] >> shift & 255 for shift in (16, 8, 0)], 1)
    return points, colours.astype(np.uint8)
