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
from mde_ros.frame import Camera
from mde_ros.geometry import project, rays, to_millimetres, transform
from mde_ros.simulation.bag import START_NS, write_bag
from mde_ros.simulation.shapes import yaw_pose

COUNT, SIZE = 3, (32, 24)


@pytest.fixture
def clip(tmp_path):
    """A clip of random pictures: a camera that nods above a base that drives a curve."""
    rng, folder = np.random.default_rng(0), tmp_path / "room_000000"
    for name in ("rgb", "depth", "instance"):
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
        instance = rng.integers(0, 5, SIZE[::-1]).astype(np.uint16)
        cv2.imwrite(str(folder / f"instance/{index:03d}.png"), instance)
        base = T_world_laser[index].copy()
        base[2, 3] = 0
        T_world_camera.append(base @ T_base_camera @ yaw_pose(0, 0, 0, 0.1 * index))
    np.savez(
        folder / "scan.npz", ranges=rng.uniform(0.1, 9, (COUNT, 90)).astype(np.float32),
        angle_min=-1.0, angle_increment=0.02, range_min=0.05, range_max=20.0,
        object_moving=[False, True, False, True], T_world_laser=T_world_laser,
        stamp_ns=np.arange(COUNT) * 100_000_000,
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
        ("/camera/image_raw", "/camera/camera_info", "/camera/depth/image_raw", "/camera/moving",
         "/scan", "/odom", "/tf"), COUNT,
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


def test_points_and_moving_things_come_back_as_the_clip_has_them(clip, tmp_path):
    """Oracle: ranges and T_camera_laser of scan.npz, instance pictures and what they say moves."""
    folder, _ = clip
    write_bag(folder, tmp_path / "clip.mcap")
    dataset, scan = BagDataset(tmp_path / "clip.mcap"), np.load(folder / "scan.npz")
    assert dataset.topics.scan == "/scan" and dataset.topics.mask == "/camera/moving"
    angles = scan["angle_min"] + scan["angle_increment"] * np.arange(90)
    for index, sample in enumerate(dataset):
        r = scan["ranges"][index]
        at_laser = np.stack([r * np.cos(angles), r * np.sin(angles), 0 * r], 1)
        expected = transform(scan["T_camera_laser"][index], at_laser)
        np.testing.assert_allclose(sample.frame.points, expected, atol=1e-5)
        instance = cv2.imread(str(folder / f"instance/{index:03d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(sample.moving, (instance == 2) | (instance == 4))
    assert not dataset.notes()


def test_points_lie_on_the_depth_of_what_the_laser_hit(clip, tmp_path):
    """A floor and a wall 5 m ahead in the world, seen by both in closed form from every pose."""
    folder, T_world_camera = clip
    facts = json.loads((folder / "intrinsics.json").read_text())
    K = np.array([[facts["fx"], 0, facts["cx"]], [0, facts["fy"], facts["cy"]], [0, 0, 1]])
    camera, scan = Camera(*SIZE, K), dict(np.load(folder / "scan.npz"))
    angles = scan["angle_min"] + scan["angle_increment"] * np.arange(90)
    beams = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    for index in range(COUNT):
        T, view = T_world_camera[index], rays(camera).astype(np.float64)
        ways = view @ T[:3, :3].T
        with np.errstate(divide="ignore"):
            wall, floor = (5 - T[0, 3]) / ways[..., 0], -T[2, 3] / ways[..., 2]
        depth_m = np.minimum(np.where(wall > 0, wall, np.inf), np.where(floor > 0, floor, np.inf))
        cv2.imwrite(str(folder / f"depth/{index:03d}.png"), to_millimetres(depth_m))
        T = scan["T_world_laser"][index]
        reach = (5 - T[0, 3]) / (beams @ T[:3, :3].T)[:, 0]
        scan["ranges"][index] = np.where(reach > 0, reach, np.inf)
    np.savez(folder / "scan.npz", **scan)
    write_bag(folder, tmp_path / "clip.mcap")
    for sample in BagDataset(tmp_path / "clip.mcap"):
        uv, z = project(sample.frame.points, sample.frame.camera)
        seen = (uv >= 0).all(1) & (uv <= (SIZE[0] - 1, SIZE[1] - 1)).all(1)
        column, row = uv[seen].astype(int).T
        # A wall that is not square to the camera lies between the depths of the pixels around.
        around = np.stack([sample.truth_m[row + y, column + x] for x in (0, 1) for y in (0, 1)])
        assert seen.sum() > 15
        assert (z[seen] > around.min(0) - 2e-3).all() and (z[seen] < around.max(0) + 2e-3).all()
