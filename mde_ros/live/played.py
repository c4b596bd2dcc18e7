"""What is played to a node: its topics, and what the node tells of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mde_ros.datasets import Dataset

DIAGNOSTICS, DIAGNOSTICS_TYPE = "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray"


class LiveError(ValueError):
    """Frames cannot be played through the node; the message is one sentence."""


@dataclass(frozen=True)
class PlayedTopics:
    """The topics of a bag or folder that a node needs, and their names when it is played.

    Attributes:
        image, camera_info: names in the bag.
        kind: ROS type of the images.
        frame: frame_id of the camera.
        scan, scan_kind, scan_frame: the same of its LiDAR; empty without one.
    """

    image: str
    camera_info: str
    kind: str
    frame: str
    scan: str = ""
    scan_kind: str = ""
    scan_frame: str = ""

    @property
    def transport(self) -> str:
        """What the node calls image_transport."""
        return "compressed" if self.kind.endswith("CompressedImage") else "raw"

    @property
    def base(self) -> str:
        """The topic that the node's `image` is remapped to."""
        from mde_ros.nodes.player import valid_name

        compressed = self.transport == "compressed"
        return valid_name(self.image.removesuffix("/compressed") if compressed else self.image)

    @property
    def heard(self) -> str:
        """The topic that the images are published on."""
        return f"{self.base}/compressed" if self.transport == "compressed" else self.base

    @property
    def heard_info(self) -> str:
        """The topic that camera_info is published on."""
        from mde_ros.nodes.player import valid_name

        return valid_name(self.camera_info)

    @property
    def heard_scan(self) -> str:
        """The topic that scans are published on."""
        from mde_ros.nodes.player import valid_name

        return valid_name(self.scan)

    @property
    def scan_type(self) -> str:
        """What the completion node calls scan_type."""
        return self.scan_kind.rpartition("/")[2]

    def node(self, namespace: str, settings: Mapping[str, Any], completion: bool) -> list[str]:
        """Module and arguments of the depth or completion node that hears these topics."""
        remaps = {"__ns": namespace, "image": self.base, "camera_info": self.heard_info}
        if completion:
            remaps["scan"] = self.heard_scan
        out = [f"mde_ros.nodes.{'completion' if completion else 'depth'}_node", "--ros-args"]
        for name, topic in remaps.items():
            out += ["-r", f"{name}:={topic}"]
        for name, value in {**settings, "image_transport": self.transport}.items():
            out += ["-p", f"{name}:={json.dumps(value)}"]
        return out

    def player(self, source: str | Path, rate: float, folder_rate: float = 10.0) -> list[str]:
        """Module and arguments of the player, which waits for two listeners.

        These are the node and who judges it: with either missing, the first frames would be lost.
        """
        out = ["mde_ros.nodes.player", str(source), "--no-progress"]
        out += ["--rate", str(rate), "--folder-rate", str(folder_rate)]
        out += ["--wait-for", self.image, self.camera_info, "--wait-count", "2"]
        out += ["--remap", f"{self.image}:={self.heard}"] if self.heard != self.image else []
        return out


def topics_of(source: Any, dataset: Dataset) -> PlayedTopics:
    """The topics of an opened Bag or FolderBag.

    Args:
        source: as player.open_source opens it.
        dataset: the same as a data set.

    Raises:
        LiveError: when the data set is not one bag.
    """
    from mde_ros.datasets.bag_file import FolderBag
    from mde_ros.datasets.bag_messages import IMAGE, IMAGE_TOPIC, INFO_TOPIC, OPTICAL_FRAME
    from mde_ros.datasets.bag_topics import first_message

    if isinstance(source, FolderBag):
        return PlayedTopics(IMAGE_TOPIC, INFO_TOPIC, IMAGE, OPTICAL_FRAME)
    chosen: Any = getattr(dataset, "topics", None)
    if chosen is None:
        raise LiveError(f"{source.path}: expected one bag or an RGB-D folder to be played")
    kind = source.topics[chosen.image].type
    frame = first_message(source, chosen.camera_info).header.frame_id
    topics = PlayedTopics(chosen.image, chosen.camera_info, kind, frame)
    if chosen.scan is None:
        return topics
    scan_frame = first_message(source, chosen.scan).header.frame_id
    kind = source.topics[chosen.scan].type
    return replace(topics, scan=chosen.scan, scan_kind=kind, scan_frame=scan_frame)


def scan_settings(source: Any, topics: PlayedTopics, laser_to_camera: str = "") -> dict[str, str]:
    """Parameters of the completion node for the scans of an opened Bag.

    Args:
        laser_to_camera: that of the node; by default what /tf_static of the bag says, for which the
            node itself needs tf2_ros, and pip has none.

    Raises:
        LiveError: when there are no scans, or nothing tells where the LiDAR is.
    """
    from mde_ros.datasets.bag_transforms import static_tree
    from mde_ros.datasets.transform_tree import TransformError
    from mde_ros.geometry import quaternion

    if not topics.scan:
        raise LiveError(f"{source.path}: expected a LiDAR's scans to complete, there are none")
    if not laser_to_camera:
        try:
            T = static_tree(source).lookup(topics.frame, topics.scan_frame, source.start_ns)
        except TransformError as error:
            raise LiveError(
                f"{source.path}: expected its /tf_static to tell where the LiDAR is, but {error};"
                " give it with --laser-to-camera"
            ) from None
        laser_to_camera = " ".join(map(str, [*T[:3, 3], *quaternion(T[:3, :3])]))
    return {"scan_type": topics.scan_type, "laser_to_camera": laser_to_camera}


def stamps_of(source: Any, dataset: Any) -> list[int]:
    """The stamps of all images, in their order; of a bag, the first call reads through it."""
    from mde_ros.datasets.bag_file import FolderBag

    if isinstance(source, FolderBag):
        return [source.stamp(i) for i in range(len(dataset))]
    return dataset.stamps_ns()


def counts_of(diagnostics: Mapping[str, str]) -> Counter[str]:
    """What the node counts of its frames."""
    counted = ("frames_", "dropped.")
    return Counter({k: int(v) for k, v in diagnostics.items() if k.startswith(counted)})


def dropped(counts: Counter[str], sent: int, came: int) -> dict[str, int]:
    """Why images have no depth: the node's own reasons, and what never reached it or us.

    Args:
        counts: of the node, since the first image; none if it has told nothing.
        sent: images that were played.
        came: depth images that came back.
    """
    if not counts:
        return {"the node does not tell": sent - came} if sent > came else {}
    out = {k.removeprefix("dropped."): n for k, n in counts.items() if k.startswith("dropped.")}
    out["idle"] = counts["frames_idle"]
    # What came is known at once, what the node counts only now and then.
    out["not received by the node"] = sent - max(counts["frames_in"], came)
    out["not received from the node"] = counts["frames_out"] - came
    return {reason: n for reason, n in out.items() if n > 0}


def node_says(cdr: bytes, image_topic: str) -> dict[str, str]:
    """What the node that hears these images tells in a message on /diagnostics, {} if nothing."""
    from mde_ros.datasets.bag_messages import JAZZY

    for status in JAZZY.deserialize_cdr(cdr, DIAGNOSTICS_TYPE).status:  # type: ignore[attr-defined]
        values = {v.key: v.value for v in status.values}
        if values.get("image") == image_topic:
            return values
    return {}
