"""What is played to a node: its topics, and what the node tells of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mde_ros.datasets import Dataset

DIAGNOSTICS, DIAGNOSTICS_TYPE = "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray"


class LiveError(ValueError):
    """Frames cannot be played through the node; the message is one sentence."""


@dataclass(frozen=True)
class PlayedTopics:
    """The topics of a bag or folder that a depth node needs, and their names when it is played.

    Attributes:
        image, camera_info: names in the bag.
        kind: ROS type of the images.
        frame: frame_id of the camera.
    """

    image: str
    camera_info: str
    kind: str
    frame: str

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

    def player(self, source: str | Path, rate: float, folder_rate: float = 10.0) -> list[str]:
        """Module and arguments of the player, which waits for two listeners.

        These are the node and who judges it: with either missing, the first frames would be lost.
        """
        out = ["mde_ros.nodes.player", str(source), "--no-progress"]
        out += ["--rate", str(rate), "--folder-rate", str(folder_rate)]
        out += ["--wait-for", self.camera_info, "--wait-count", "2"]
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

    if isinstance(source, FolderBag):
        return PlayedTopics(IMAGE_TOPIC, INFO_TOPIC, IMAGE, OPTICAL_FRAME)
    chosen: Any = getattr(dataset, "topics", None)
    if chosen is None:
        raise LiveError(f"{source.path}: expected one bag or an RGB-D folder to be played")
    kind = source.topics[chosen.image].type
    _, _, raw = next(source.messages([chosen.camera_info]))
    frame = source.decode(chosen.camera_info, raw).header.frame_id
    return PlayedTopics(chosen.image, chosen.camera_info, kind, frame)


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
    out["not received by the node"] = sent - counts["frames_in"]
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
