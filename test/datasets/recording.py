"""A robot in a box-shaped room, recorded into a bag: everything it measures in closed form.

The robot drives a circle, its laser and its camera are fixed to it. Frames: odom → base → laser,
camera; the camera's frame is optical.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mde_ros.datasets.bag_file import BagWriter
from mde_ros.datasets.bag_messages import (
    CAMERA_INFO,
    CLOUD,
    IMAGE,
    JAZZY,
    OPTICAL_FRAME,
    SCAN,
    TF,
    sample_messages,
)
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import pose, quaternion

SECOND = 1_000_000_000
WALLS_M = 4.0, 3.0  # the room reaches from minus to plus this, x and y, in odom
SPEED, TURN = 0.8, 0.5  # m/s, rad/s
BEAMS, RANGE_M = 181, 20.0
T_BASE_LASER = pose([0.2, 0.05, 0.3], [0, 0, np.sin(0.05), np.cos(0.05)])
T_BASE_CAMERA = pose([0.1, -0.02, 0.8], [-0.5, 0.5, -0.5, 0.5])  # z forward, x right, y down
CAMERA = Camera(64, 48, np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]]))
RIGHT_POSE = np.linalg.inv(T_BASE_CAMERA) @ T_BASE_LASER  # T_camera_laser


def base_pose(seconds: float) -> np.ndarray:
    """T_odom_base: a circle."""
    yaw, radius = TURN * seconds, SPEED / TURN
    place = [radius * np.sin(yaw) - 1, radius * (1 - np.cos(yaw)), 0]
    return pose(place, [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)])


def ranges(T_odom_laser: np.ndarray, angle: float) -> float:
    """How far the room's wall is in one direction of a level laser."""
    direction = T_odom_laser[:3, :3] @ (np.cos(angle), np.sin(angle), 0)
    with np.errstate(divide="ignore"):
        reach = [
            (np.sign(d) * w - p) / d for d, w, p in zip(direction, WALLS_M, T_odom_laser[:, 3])
        ]
    return min(r for r in reach if r > 0)


def to_walls(points_odom: np.ndarray) -> np.ndarray:
    """Distance of points (N, 3) from the nearest wall, metres."""
    return np.abs(np.abs(points_odom[:, :2]) - WALLS_M).min(1)


def make(kind, *fields):
    return JAZZY.types[kind](*fields)


def header(stamp: int, frame: str):
    time = make("builtin_interfaces/msg/Time", stamp // SECOND, stamp % SECOND)
    return make("std_msgs/msg/Header", time, frame)


def transforms(*edges):
    """TFMessage of (stamp, parent, child, T_parent_child)."""
    items = []
    for stamp, parent, child, T in edges:
        offset = make("geometry_msgs/msg/Vector3", *T[:3, 3].tolist())
        turn = make("geometry_msgs/msg/Quaternion", *quaternion(T[:3, :3]).tolist())
        motion = make("geometry_msgs/msg/Transform", offset, turn)
        items.append(
            make("geometry_msgs/msg/TransformStamped", header(stamp, parent), child, motion)
        )
    return make(TF, items)


def laser_scan(stamp: int, sweep_s: float = 0.0, frame: str = "laser", **changes):
    """What the laser measures from `stamp` on, ray by ray."""
    angles = np.linspace(-1.4, 1.4, BEAMS)
    step_s = sweep_s / (BEAMS - 1)
    measured = [
        ranges(base_pose(stamp / SECOND + i * step_s) @ T_BASE_LASER, angle)
        for i, angle in enumerate(angles)
    ]
    fields = {
        "header": header(stamp, frame), "angle_min": angles[0], "angle_max": angles[-1],
        "angle_increment": angles[1] - angles[0], "time_increment": step_s, "scan_time": 0.0,
        "range_min": 0.05, "range_max": RANGE_M, "ranges": np.array(measured, np.float32),
        "intensities": np.zeros(0, np.float32), **changes,
    }  # fmt: skip
    return JAZZY.types[SCAN](**fields)


def point_cloud(stamp: int, points: np.ndarray, frame: str = "laser"):
    """PointCloud2 of points (N, 3), x y z float32."""
    fields = [make("sensor_msgs/msg/PointField", axis, 4 * i, 7, 1) for i, axis in enumerate("xyz")]
    data = np.frombuffer(np.ascontiguousarray(points, "<f4").tobytes(), np.uint8)
    count = len(points)
    return make(CLOUD, header(stamp, frame), 1, count, fields, False, 12, 12 * count, data, True)


def mono(stamp: int, pixels: np.ndarray, encoding: str):
    data = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8)
    height, width = pixels.shape
    return make(
        IMAGE, header(stamp, OPTICAL_FRAME), height, width, encoding, 0, data.size // height, data
    )


def images(stamps, camera: Camera = CAMERA, depth_m=None):
    """Image, camera_info and perhaps depth at each stamp, as (topic, log time, type, message)."""
    pixels = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    for stamp in stamps:
        for topic, time_ns, cdr in sample_messages(Frame(pixels, camera), depth_m, stamp):
            kind = CAMERA_INFO if topic.endswith("info") else IMAGE
            yield topic, time_ns, kind, cdr


def odometry(stamps):
    """/tf with odom → base at each stamp."""
    for stamp in stamps:
        edge = (stamp, "odom", "base", base_pose(stamp / SECOND))
        yield "/tf", stamp, TF, transforms(edge)


def mounting(stamp: int = 0):
    """/tf_static with base → laser and base → camera."""
    edges = ("base", "laser", T_BASE_LASER), ("base", OPTICAL_FRAME, T_BASE_CAMERA)
    yield "/tf_static", stamp, TF, transforms(*((stamp, *e) for e in edges))


def write(path: Path, *parts) -> Path:
    """A bag of (topic, log time, type, message or CDR), in the order of their times."""
    with BagWriter(path) as bag:
        for topic, time_ns, kind, message in sorted(
            (m for part in parts for m in part), key=lambda m: m[1]
        ):
            raw = message
            if not isinstance(raw, bytes):
                raw = bytes(JAZZY.serialize_cdr(message, kind))
            bag.write(topic, kind, time_ns, raw)
    return path


def write_ros1(path: Path, *parts) -> Path:
    """The same as a bag of ROS 1."""
    store, to = get_typestore(Stores.ROS1_NOETIC), {}
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TF))
    capitals = {name: name.upper() for name in "dkrp"}

    def ros1(message):
        kind = message.__msgtype__
        fields = {k: v for k, v in vars(message).items() if k != "__msgtype__"}
        if kind == "std_msgs/msg/Header":
            fields["seq"] = 0
        if kind == CAMERA_INFO:
            fields = {capitals.get(k, k): v for k, v in fields.items()}
        return store.types[kind](**{k: converted(v) for k, v in fields.items()})

    def converted(value):
        if isinstance(value, list):
            return [converted(v) for v in value]
        return ros1(value) if hasattr(value, "__msgtype__") else value

    with Ros1Writer(path) as bag:
        for topic, time_ns, kind, message in sorted(
            (m for part in parts for m in part), key=lambda m: m[1]
        ):
            if isinstance(message, bytes):
                message = JAZZY.deserialize_cdr(message, kind)
            if topic not in to:
                to[topic] = bag.add_connection(topic, kind, typestore=store)
            bag.write(to[topic], time_ns, store.serialize_ros1(ros1(message), kind))
    return path
