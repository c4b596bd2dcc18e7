"""Where the sensors of a bag are: its /tf_static and /tf, or the RealSense SDK's own extrinsics."""

from __future__ import annotations

from typing import Any

import numpy as np

from mde_ros.datasets.bag_file import Bag
from mde_ros.datasets.bag_messages import TF, stamp_ns
from mde_ros.datasets.bag_topics import first_message
from mde_ros.datasets.transform_tree import TransformError, TransformTree
from mde_ros.geometry import pose


def static_tree(bag: Bag) -> TransformTree:
    """The transforms of all …/tf_static topics, for all time."""
    tree = TransformTree()
    for topic in bag.topics.values():
        if topic.type == TF and topic.name.rpartition("/")[2] == "tf_static":
            for _, _, raw in bag.messages([topic.name]):
                add_transforms(tree, bag.decode(topic.name, raw), static=True)
    return tree


def add_transforms(tree: TransformTree, message: Any, static: bool = False) -> list[str]:
    """Take the transforms of a TFMessage; a stamp of zero holds for all time.

    Returns:
        What is wrong with those that are none.
    """
    refused = []
    for item in message.transforms:
        try:
            stamp = None if static else stamp_ns(item.header) or None
            tree.add(item.header.frame_id, item.child_frame_id, pose_of(item.transform), stamp)
        except ValueError as error:
            refused.append(str(error))
    return refused


def pose_of(message: Any) -> np.ndarray:
    """geometry_msgs/Transform → (4, 4).

    Raises:
        ValueError: when its quaternion is none.
    """
    t, q = message.translation, message.rotation
    return pose(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))


def sdk_extrinsics(bag: Bag, image: str, depth: str) -> np.ndarray | None:
    """T_image_depth from the RealSense SDK's `…/tf/N`, which map the reference into a stream."""
    T = []
    for topic in (image, depth):
        stream = topic.removesuffix("/image/data")
        names = [n for n in bag.topics if n.startswith(f"{stream}/tf/")]
        if len(names) != 1:
            return None
        T.append(pose_of(first_message(bag, names[0])))
    return T[0] @ np.linalg.inv(T[1])


def sensor_pose(
    tree: TransformTree,
    camera: tuple[str, int],
    sensor: tuple[str, int],
    given: np.ndarray | None = None,
    slack_s: float = 0.0,
) -> tuple[np.ndarray, TransformError | None]:
    """T_camera_sensor from where the sensor was at its time to where the camera was at its own.

    Args:
        tree: what is known of all frames.
        camera, sensor: frame and time, nanoseconds, of each.
        given: T_camera_sensor of two that are fixed to each other, instead of the tree's.
        slack_s: as in TransformTree.lookup.

    Returns:
        The pose; and, where there is a frame in which the robot moves but not how it did between
        the two times, the reason. The pose is then that of a robot that stood.

    Raises:
        TransformError: when camera and sensor are not connected.
    """
    (camera_frame, camera_ns), (sensor_frame, sensor_ns) = camera, sensor
    T = given
    if T is None:
        T = tree.lookup(camera_frame, sensor_frame, camera_ns, sensor_ns, slack_s=slack_s)
    # With a given pose the sensor's own motion counts, which is that of what both are fixed to.
    here = camera_frame if given is None else sensor_frame
    fixed = tree.fixed_frame(here, sensor_frame) if camera_ns != sensor_ns else None
    if fixed is None:
        return T, None
    try:
        moved = tree.lookup(here, sensor_frame, camera_ns, sensor_ns, fixed, slack_s)
    except TransformError as error:
        return T, error
    return (moved if given is None else given @ moved), None
