"""A recorded clip as a rosbag that players, RViz and training read; the only user of rosbags here.

Topics: /camera/image_raw (or .../compressed), /camera/camera_info, /camera/depth/image_raw (16UC1
millimetres), /camera/moving (mono8, 255 where something moves by itself), /scan, /odom, /tf and
/tf_static with odom → base_link → laser, camera_optical_frame.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.writer import Connection
from rosbags.typesys import Stores, get_typestore

from mde_ros.geometry import quaternion

TYPES = get_typestore(Stores.ROS2_JAZZY)
KINDS = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth/image_raw": "sensor_msgs/msg/Image",
    "/camera/moving": "sensor_msgs/msg/Image",
    "/scan": "sensor_msgs/msg/LaserScan",
    "/odom": "nav_msgs/msg/Odometry",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
}
ODOM, BASE, LASER, CAMERA = "odom", "base_link", "laser", "camera_optical_frame"
START_NS = 1_700_000_000 * 10**9  # a clip's clock starts at 0, a robot's does not


@dataclass
class Output:
    """Open connections of one bag."""

    writer: Writer
    connections: dict[str, Connection]

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, KINDS[topic], typestore=TYPES
            )
        raw = TYPES.serialize_cdr(message, KINDS[topic])
        self.writer.write(self.connections[topic], stamp_ns, raw)


def write_bag(clip: Path, path: Path, jpeg: bool = False) -> None:
    """Write the clip in folder `clip` as the mcap file `path`, complete or not at all.

    Args:
        jpeg: pictures as the JPEG files they are (a tenth of the size) instead of raw.
    """
    facts = json.loads((clip / "intrinsics.json").read_text())
    scan = np.load(clip / "scan.npz")
    movers = np.flatnonzero(scan["object_moving"]) + 1  # ids in instance/
    work = path.with_name(f".{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    writer = Writer(work / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        out = Output(writer, {})
        for index, stamp in enumerate((scan["stamp_ns"] + START_NS).tolist()):
            write_transforms(out, scan, index, stamp)
            # Before the image, which no node keeps waiting for a scan.
            out.write("/scan", stamp, laser_scan(scan, index, stamp))
            header = message("std_msgs/msg/Header", time_of(stamp), CAMERA)
            out.write("/camera/camera_info", stamp, camera_info(facts, header))
            write_images(out, clip, index, stamp, header, jpeg)
            moving = np.isin(load(clip / f"instance/{index:03d}.png"), movers)
            out.write("/camera/moving", stamp, image(np.uint8(255) * moving, "mono8", header))
    (work / "bag" / "bag.mcap").replace(path)
    shutil.rmtree(work)


def message(kind: str, *fields: Any) -> Any:
    return TYPES.types[kind](*fields)


def time_of(stamp_ns: int) -> Any:
    return message("builtin_interfaces/msg/Time", stamp_ns // 10**9, stamp_ns % 10**9)


def write_images(out: Output, clip: Path, index: int, stamp: int, header: Any, jpeg: bool) -> None:
    file = clip / f"rgb/{index:03d}.jpg"
    if jpeg:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        picture = message(
            "sensor_msgs/msg/CompressedImage", header, "rgb8; jpeg compressed bgr8", data
        )
        out.write("/camera/image_raw/compressed", stamp, picture)
    else:
        rgb = load(file)[..., ::-1]
        out.write("/camera/image_raw", stamp, image(rgb, "rgb8", header))
    depth_mm = load(clip / f"depth/{index:03d}.png")
    out.write("/camera/depth/image_raw", stamp, image(depth_mm, "16UC1", header))


def load(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError(f"cannot read {path}")
    return pixels


def image(pixels: np.ndarray, encoding: str, header: Any) -> Any:
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    height, width = pixels.shape[:2]
    step = data.size // height
    return message("sensor_msgs/msg/Image", header, height, width, encoding, 0, step, data)


def camera_info(facts: dict, header: Any) -> Any:
    K = np.array([[facts["fx"], 0, facts["cx"]], [0, facts["fy"], facts["cy"]], [0, 0, 1]])
    P = np.hstack([K, np.zeros((3, 1))])
    no_region = message("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
    return message(
        "sensor_msgs/msg/CameraInfo", header, facts["height"], facts["width"], "plumb_bob",
        np.zeros(5), K.ravel(), np.eye(3).ravel(), P.ravel(), 0, 0, no_region,
    )  # fmt: skip


def laser_scan(scan: Any, index: int, stamp: int) -> Any:
    beams = scan["ranges"].shape[1]
    first, step = float(scan["angle_min"]), float(scan["angle_increment"])
    return message(
        "sensor_msgs/msg/LaserScan", message("std_msgs/msg/Header", time_of(stamp), LASER), first,
        first + step * (beams - 1), step, 0.0, 0.0, float(scan["range_min"]),
        float(scan["range_max"]), scan["ranges"][index], np.zeros(0, np.float32),
    )  # fmt: skip


# ------------------------------------------------------------------------------ transforms


def base_pose(T_world_laser: np.ndarray) -> np.ndarray:
    """The robot's base: on the floor below its laser, (..., 4, 4)."""
    T = T_world_laser.copy()
    T[..., 2, 3] = 0
    return T


def write_transforms(out: Output, scan: Any, index: int, stamp: int) -> None:
    """Odometry and /tf of one frame; what does not move goes to /tf_static with the first."""
    T_world_base = base_pose(scan["T_world_laser"])
    T_base_laser = np.linalg.inv(T_world_base) @ scan["T_world_laser"]
    T_base_camera = T_base_laser @ np.linalg.inv(scan["T_camera_laser"])
    moving = [transform(stamp, ODOM, BASE, T_world_base[index])]
    fixed = [transform(stamp, BASE, LASER, T_base_laser[0])]
    rigid = np.allclose(T_base_camera, T_base_camera[0], atol=1e-6)
    (fixed if rigid else moving).append(transform(stamp, BASE, CAMERA, T_base_camera[index]))
    if index == 0:
        out.write("/tf_static", stamp, message("tf2_msgs/msg/TFMessage", fixed))
    out.write("/tf", stamp, message("tf2_msgs/msg/TFMessage", moving))
    out.write("/odom", stamp, odometry(T_world_base, scan["stamp_ns"], index, stamp))


def transform(stamp: int, parent: str, child: str, T_parent_child: np.ndarray) -> Any:
    header = message("std_msgs/msg/Header", time_of(stamp), parent)
    offset = message("geometry_msgs/msg/Vector3", *T_parent_child[:3, 3].tolist())
    turn = message("geometry_msgs/msg/Quaternion", *quaternion(T_parent_child[:3, :3]).tolist())
    motion = message("geometry_msgs/msg/Transform", offset, turn)
    return message("geometry_msgs/msg/TransformStamped", header, child, motion)


def odometry(T_world_base: np.ndarray, stamps_ns: np.ndarray, index: int, stamp: int) -> Any:
    """Pose and speed of the base; the speed is that of the step to the next (or last) frame."""
    T = T_world_base[index]
    place = message("geometry_msgs/msg/Point", *T[:3, 3].tolist())
    turn = message("geometry_msgs/msg/Quaternion", *quaternion(T[:3, :3]).tolist())
    speed, rate = np.zeros(3), 0.0
    if len(stamps_ns) > 1:
        first = min(index, len(stamps_ns) - 2)
        step = np.linalg.inv(T_world_base[first]) @ T_world_base[first + 1]
        seconds = float(stamps_ns[first + 1] - stamps_ns[first]) / 1e9
        speed = step[:3, 3] / seconds
        rate = float(np.arctan2(step[1, 0], step[0, 0])) / seconds
    linear = message("geometry_msgs/msg/Vector3", *speed.tolist())
    angular = message("geometry_msgs/msg/Vector3", 0.0, 0.0, rate)
    unknown = np.zeros(36)
    pose = message("geometry_msgs/msg/Pose", place, turn)
    twist = message("geometry_msgs/msg/Twist", linear, angular)
    return message(
        "nav_msgs/msg/Odometry", message("std_msgs/msg/Header", time_of(stamp), ODOM), BASE,
        message("geometry_msgs/msg/PoseWithCovariance", pose, unknown),
        message("geometry_msgs/msg/TwistWithCovariance", twist, unknown),
    )  # fmt: skip
