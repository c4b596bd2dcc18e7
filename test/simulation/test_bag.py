"""The bag of a clip holds the clip: pictures, depth, scans, and its poses as transforms."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from mde_ros.datasets.bag import BagDataset
from mde_ros.datasets.rgbd_folder import RgbdFolder
from mde_ros.simulation.bag import START_NS, quaternion, write_bag
from mde_ros.simulation.shapes import yaw_pose

COUNT, SIZE = 3, (32, 24)


@pytest.fixture
def clip(tmp_path):
    """A clip of random pictures: a camera that nods above a base that drives a curve."""
    rng, folder = np.random.default_rng(0), tmp_path / "room_000000"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    facts = {"fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5, "width": SIZE[0], "height": SIZE[1]}
    (folder / "intrinsics.json").write_text(json.dumps(facts))
    T_world_laser = np.array([yaw_pose(0.1 * i, 0.02 * i, 0.3, 0.05 * i) for i in range(COUNT)])
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T_base_camera[2, 3] = 0.5
    T_world_camera = []
    for index in range(COUNT):
        rgb = rng.integers(0, 255, (*SIZE[::-1], 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"rgb/{index:03d}.jpg"), rgb)
        depth_mm = rng.integers(0, 5000, SIZE[::-1]).astype(np.uint16)
        cv2.imwrite(str(folder / f"depth/{index:03d}.png"), depth_mm)
        base = T_world_laser[index].copy()
        base[2, 3] = 0
        T_world_camera.append(base @ T_base_camera @ yaw_pose(0, 0, 0, 0.1 * index))
    np.savez(
        folder / "scan.npz", ranges=rng.uniform(0.1, 9, (COUNT, 90)).astype(np.float32),
        angle_min=-1.0, angle_increment=0.02, range_min=0.05, range_max=20.0,
        T_world_laser=T_world_laser, stamp_ns=np.arange(COUNT) * 100_000_000,
        T_camera_laser=np.linalg.inv(T_world_camera) @ T_world_laser,
    )  # fmt: skip
    return folder, np.array(T_world_camera)


def read(path: Path) -> dict[str, list]:
    """Every message of an mcap file by topic, as (log time, message)."""
    messages: dict[str, list] = {}
    types = get_typestore(Stores.ROS2_JAZZY)
    with AnyReader([path], default_typestore=types) as bag:
        for connection, time_ns, raw in bag.messages():
            message = types.deserialize_cdr(raw, connection.msgtype)
            messages.setdefault(connection.topic, []).append((time_ns, message))
    return messages


def matrix(transform) -> np.ndarray:
    x, y, z, w = (getattr(transform.rotation, axis) for axis in "xyzw")
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = [getattr(transform.translation, axis) for axis in "xyz"]
    return T


def test_every_frame_is_there_with_its_stamp(clip, tmp_path):
    write_bag(clip[0], tmp_path / "clip.mcap")
    messages = read(tmp_path / "clip.mcap")
    counts = {topic: len(each) for topic, each in messages.items()}
    assert counts.pop("/tf_static") == 1
    assert counts == dict.fromkeys(
        ("/camera/image_raw", "/camera/camera_info", "/camera/depth/image_raw", "/scan", "/odom",
         "/tf"), COUNT,
    )  # fmt: skip
    for topic in ("/camera/image_raw", "/scan"):
        for index, (time_ns, message) in enumerate(messages[topic]):
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            assert stamp == time_ns == START_NS + index * 100_000_000
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("jpeg", [False, True])
def test_a_bag_reads_back_as_the_clip_it_came_from(clip, tmp_path, jpeg):
    folder, _ = clip
    write_bag(folder, tmp_path / "clip.mcap", jpeg)
    there, back = RgbdFolder(folder), BagDataset(tmp_path / "clip.mcap")
    assert len(back) == COUNT
    for a, b in zip(there, back):
        assert np.array_equal(a.frame.image, b.frame.image)
        np.testing.assert_allclose(a.truth_m, b.truth_m, atol=1e-6)
        assert np.array_equal(a.frame.camera.K, b.frame.camera.K)


def test_scans_are_unchanged(clip, tmp_path):
    write_bag(clip[0], tmp_path / "clip.mcap")
    scan = np.load(clip[0] / "scan.npz")
    for index, (_, message) in enumerate(read(tmp_path / "clip.mcap")["/scan"]):
        assert np.array_equal(message.ranges, scan["ranges"][index])
        span = message.angle_min + message.angle_increment * (len(message.ranges) - 1)
        assert message.angle_max == pytest.approx(span)


def test_the_transform_tree_gives_the_poses_of_camera_and_laser(clip, tmp_path):
    folder, T_world_camera = clip
    write_bag(folder, tmp_path / "clip.mcap")
    messages, scan = read(tmp_path / "clip.mcap"), np.load(folder / "scan.npz")
    static = messages["/tf_static"][0][1].transforms
    for index, (_, moving) in enumerate(messages["/tf"]):
        edges = {(t.header.frame_id, t.child_frame_id): t.transform
                 for t in [*static, *moving.transforms]}  # fmt: skip
        T_odom_base = matrix(edges["odom", "base_link"])
        T_camera = T_odom_base @ matrix(edges["base_link", "camera_optical_frame"])
        np.testing.assert_allclose(T_camera, T_world_camera[index], atol=1e-9)
        T_laser = T_odom_base @ matrix(edges["base_link", "laser"])
        np.testing.assert_allclose(T_laser, scan["T_world_laser"][index], atol=1e-9)


def test_odometry_says_how_fast_the_base_moves(clip, tmp_path):
    write_bag(clip[0], tmp_path / "clip.mcap")
    twist = read(tmp_path / "clip.mcap")["/odom"][0][1].twist.twist
    assert twist.linear.x == pytest.approx(1.0) and twist.linear.y == pytest.approx(0.2)
    assert twist.angular.z == pytest.approx(0.5)


def test_quaternions_are_those_of_their_rotation():
    assert quaternion(yaw_pose(0, 0, 0, np.pi / 2)[:3, :3]) == pytest.approx(
        [0, 0, 0.5**0.5, 0.5**0.5]
    )
    assert np.abs(quaternion(np.diag([1.0, -1, -1]))) == pytest.approx([1, 0, 0, 0])
