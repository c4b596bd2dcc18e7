"""Which topics of a bag make samples: those asked for, or found by type, encoding and name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import (
    CAMERA_INFO,
    CLOUD,
    COMPRESSED,
    IMAGE,
    SCAN,
    TF,
    is_depth,
    is_mask,
)

NONE = "none"  # asks for a kind of topic to be left out
LIDAR = (SCAN, CLOUD)


@dataclass
class Topics:
    """The topics of a bag that make samples; None for what there is not.

    Attributes:
        truth: a depth image, or LiDAR returns.
        truth_info: the camera of a depth image.
        transforms: those of moving frames, such as /tf.
        wanted: those asked for by name, and not merely found.
        notes: what was left out though it is there, one sentence each.
    """

    image: str
    camera_info: str
    truth: str | None = None
    truth_info: str | None = None
    scan: str | None = None
    mask: str | None = None
    transforms: list[str] = field(default_factory=list)
    wanted: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def choose_topics(
    bag: Bag,
    image: str | None = None,
    camera_info: str | None = None,
    truth: str | None = None,
    scan: str | None = None,
    mask: str | None = None,
) -> Topics:
    """The topics asked for; of the others those that are the only ones of their kind.

    Raises:
        BagError: when one asked for is missing or of another kind, or images and camera_info are
            missing or ambiguous.
    """
    kinds = {"camera_info": (CAMERA_INFO,), "scan": LIDAR, "truth": (IMAGE, COMPRESSED, *LIDAR)}
    kinds["image"] = kinds["mask"] = (IMAGE, COMPRESSED)
    asked = {"image": image, "camera_info": camera_info, "truth": truth, "scan": scan, "mask": mask}
    wanted = {what: name for what, name in asked.items() if name not in (None, NONE)}
    for what, name in wanted.items():
        if bag.topic(str(name)).type not in kinds[what]:
            raise BagError(
                f"{bag.path}: expected {name} as {what.replace('_', '-')} to be a"
                f" {' or '.join(kinds[what])}, it is a {bag.topic(str(name)).type}"
            )
    # Of our own nodes, in metres like depth or grey like a camera: neither truth nor image.
    ours = ("/uncertainty", "/saliency")
    pictures = [n for n in _of_type(bag, IMAGE, COMPRESSED) if not n.endswith(ours)]
    first = {name: first_message(bag, name) for name in pictures}
    depths = [n for n in pictures if is_depth(first[n], n)]
    masks = [n for n in pictures if n not in depths and is_mask(first[n], n)]
    images = [n for n in pictures if n not in depths and n not in masks]
    infos = _of_type(bag, CAMERA_INFO)
    if image is None:
        image = _only(bag, "image", _preferred(images, first))
    if image is None:
        raise BagError(f"{bag.path}: there is no image in it; it has {bag.listed(bag.topics)}")
    if camera_info is None:
        camera_info = _only(bag, "camera-info", _nearest_by_name(image, infos))
    if camera_info is None:
        raise BagError(
            f"{bag.path}: there is no sensor_msgs/msg/CameraInfo for {image} in it, so its depth"
            f" would have no scale; it has {bag.listed(bag.topics)}"
        )
    topics = Topics(image, camera_info, wanted=frozenset(wanted.values()))
    if truth is None:
        truth = _only(bag, "truth", _preferred(depths, first))
    _choose_lidar(bag, topics, truth, scan, {first[n].header.frame_id for n in depths})
    if topics.truth in pictures:
        topics.truth_info = next(iter(_nearest_by_name(topics.truth or "", infos)), None)
    topics.mask = _one(topics, "mask", masks) if mask is None else _asked(mask)
    topics.transforms = [n for n in _of_type(bag, TF) if n.rpartition("/")[2] != "tf_static"]
    return topics


def _choose_lidar(
    bag: Bag, topics: Topics, truth: str | None, scan: str | None, depth_frames: set[str]
) -> None:
    """Fill in scan and truth: a laser scan is input; of clouds, truth where there is none yet."""
    lasers = _of_type(bag, SCAN)
    # A cloud in the frame of a depth image was made of it.
    clouds = [
        n for n in _of_type(bag, CLOUD) if first_message(bag, n).header.frame_id not in depth_frames
    ]
    topics.truth, topics.scan = _asked(truth), _asked(scan)
    if scan is None:
        left = [n for n in lasers if n != topics.truth]
        if not left and truth is not None:
            left = [n for n in clouds if n != topics.truth]
        topics.scan = _one(topics, "scan", left)
    if truth is None:
        topics.truth = _one(topics, "truth", [n for n in clouds if n != topics.scan])
        if topics.truth is None and lasers:
            topics.notes.append(
                f"{bag.path}: there is no depth in it to judge by; a laser scan can be the truth:"
                f" --truth-topic {lasers[0]}"
            )


def _asked(name: str | None) -> str | None:
    return None if name == NONE else name


def _of_type(bag: Bag, *kinds: str) -> list[str]:
    return [t.name for t in bag.topics.values() if t.type in kinds and t.count]


def first_message(bag: Bag, topic: str) -> Any:
    """The first message of a topic, decoded.

    Raises:
        BagError: when there is none.
    """
    for _, _, raw in bag.messages([topic]):
        return bag.decode(topic, raw)
    raise BagError(f"{bag.path}: {topic} has no messages")


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


def _preferred(names: list[str], first: dict[str, Any]) -> list[str]:
    """Colour before grey, raw before the same topic compressed."""
    colour = [n for n in names if not getattr(first[n], "encoding", "").startswith("mono")]
    names = colour or names
    twins = {f"{n}/{s}" for n in names for s in ("compressed", "compressedDepth")}
    return [n for n in names if n not in twins]


def _several(what: str, names: list[str]) -> str:
    return (
        f"there are several {what} topics, choose one with --{what}-topic:"
        f" {', '.join(sorted(names))}"
    )


def _only(bag: Bag, what: str, names: list[str]) -> str | None:
    """What a sample needs: an error when it is ambiguous."""
    if len(names) > 1:
        raise BagError(f"{bag.path}: {_several(what, names)}")
    return names[0] if names else None


def _one(topics: Topics, what: str, names: list[str]) -> str | None:
    """What a sample can do without: left out, with a note, when it is ambiguous."""
    if len(names) > 1:
        topics.notes.append(_several(what, names))
    return names[0] if len(names) == 1 else None
