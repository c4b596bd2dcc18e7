"""Scans of a bag as points of its images: on the walls of a room where a robot drives a circle."""

from __future__ import annotations

import inspect
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mde_ros.config import CompletionSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.bag import BagDataset
from mde_ros.datasets.bag_file import BagError
from mde_ros.datasets.bag_messages import CLOUD, IMAGE, OPTICAL_FRAME, SCAN, TF
from mde_ros.frame import Camera
from mde_ros.geometry import points_to_depth, pose, quaternion, transform

sys.path.append(str(Path(__file__).parent))  # for recording.py: test folders are no packages

from recording import (
    BEAMS,
    CAMERA,
    RIGHT_POSE,
    SECOND,
    T_BASE_CAMERA,
    base_pose,
    images,
    laser_scan,
    mono,
    mounting,
    odometry,
    point_cloud,
    to_walls,
    transforms,
    write,
    write_ros1,
)

STAMPS = [SECOND + i * SECOND // 5 for i in range(6)]  # of the images


def every(period_s, *, start=0.8, stop=2.3):
    return [round(s * SECOND) for s in np.arange(start, stop, period_s)]


def scans(stamps, **options):
    return [("/scan", s, SCAN, laser_scan(s, **options)) for s in stamps]


def clouds(stamps, points, topic="/lidar/points", frame="laser"):
    return [(topic, s, CLOUD, point_cloud(s, points, frame)) for s in stamps]


def in_room(sample):
    """The points of a sample in odom, by the camera's true pose at the image's time."""
    T_odom_camera = base_pose(sample.frame.stamp_ns / SECOND) @ T_BASE_CAMERA
    return transform(T_odom_camera, sample.frame.points)


# ---- where the points are ------------------------------------------------------------------------


@pytest.mark.parametrize("sweep_s", [0.0, 0.09])
@pytest.mark.parametrize("given", [False, True], ids=["tf", "laser_to_camera"])
@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_points_lie_on_the_walls_though_the_robot_drives(tmp_path, sweep_s, given, kind):
    """Scans at 8 Hz, images at 5: up to 60 ms apart, and a sweep takes another 90 ms."""
    options = {"laser_to_camera": list(_numbers(RIGHT_POSE))} if given else {}
    frames = [("/tf_static", 0, TF, transforms((0, "base", "laser", _base_laser())))]
    path = (write if kind == "mcap" else write_ros1)(
        tmp_path / f"a.{kind}", images(STAMPS), scans(every(0.125), sweep_s=sweep_s),
        odometry(every(0.05)), frames if given else mounting(),
    )  # fmt: skip
    dataset = BagDataset(path, **options)
    assert dataset.topics.scan == "/scan"
    for sample in dataset:
        assert sample.frame.points.shape == (BEAMS, 3)
        assert sample.frame.points.dtype == np.float32
        points = in_room(sample)
        # What is left is the arc between two poses of odometry, taken as a straight line.
        assert to_walls(points).max() < 3e-3
        assert points[:, 2] == pytest.approx(0.3, abs=1e-3)
    (note,) = dataset.notes()
    assert note.endswith("a laser scan can be the truth: --truth-topic /scan")


def _base_laser():
    return T_BASE_CAMERA @ RIGHT_POSE


def _numbers(T):
    return *T[:3, 3].tolist(), *quaternion(T[:3, :3]).tolist()


def test_without_odometry_a_scan_is_placed_as_if_the_robot_stood(tmp_path):
    """Closed form: points of the laser at its own time, moved rigidly. Off by what it drove."""
    stamps = [s + 50_000_000 for s in STAMPS]
    parts = list(images(STAMPS)), scans(stamps)
    by_tf = open_dataset(write(tmp_path / "a.mcap", *parts, mounting()))
    numbers = " ".join(map(str, _numbers(RIGHT_POSE)))
    by_hand = open_dataset(write(tmp_path / "b.mcap", *parts), laser_to_camera=numbers)
    for a, b, stamp in zip(by_tf, by_hand, stamps, strict=True):
        assert a.frame.points == pytest.approx(b.frame.points, abs=1e-5)
        T_odom_laser = base_pose(stamp / SECOND) @ _base_laser()
        at_its_time = transform(np.linalg.inv(RIGHT_POSE), a.frame.points)
        assert to_walls(transform(T_odom_laser, at_its_time)).max() < 1e-5
        assert to_walls(in_room(a)).max() > 0.03  # 50 ms at 0.8 m/s and 0.5 rad/s


def test_the_seven_numbers_put_what_is_ahead_of_the_laser_ahead_of_the_camera(tmp_path):
    """By hand: a level laser 0.5 m below, 0.1 m ahead and 0.07 m left of a level camera."""
    path = write(tmp_path / "a.mcap", images(STAMPS), clouds(STAMPS, np.array([[2, 0.3, 0.4]])))
    dataset = open_dataset(
        path, scan_topic="/lidar/points", laser_to_camera="-0.07 0.5 0.1 0.5 -0.5 0.5 0.5"
    )
    assert dataset[0].frame.points == pytest.approx(np.array([[-0.37, 0.1, 2.1]]), abs=1e-6)


def test_a_scan_of_the_same_time_needs_no_motion(tmp_path):
    path = write(tmp_path / "a.mcap", images(STAMPS), scans(STAMPS), mounting())
    for sample in open_dataset(path):
        assert to_walls(in_room(sample)).max() < 1e-5


def test_the_order_of_asking_changes_no_point(tmp_path):
    path = write(
        tmp_path / "a.mcap", images(STAMPS), scans(every(0.125), sweep_s=0.09),
        odometry(every(0.05)), mounting(), clouds(STAMPS, np.ones((2, 3)) * (4, 0.1, 0.2)),
    )  # fmt: skip
    there = list(open_dataset(path))
    dataset = pickle.loads(pickle.dumps(open_dataset(path)))
    dataset[0]
    for i in (5, 2, 4, 0, 3, 1):
        sample = dataset._seek(i)
        assert np.array_equal(sample.frame.points, there[i].frame.points)
        assert np.array_equal(sample.truth_m, there[i].truth_m) and sample.truth_m.any()
        assert sample.name == there[i].name


# ---- which scan ----------------------------------------------------------------------------------


def test_the_nearest_scan_counts_by_the_middle_of_its_sweep_and_within_its_age(tmp_path):
    """Sweeps of 0.2 s: the one that began 0.11 s before an image is nearer than that at it."""
    image = 2 * SECOND
    begins = {image - 110_000_000: 1.0, image: 2.0}
    parts = [
        ("/scan", s, SCAN, laser_scan(s, 0.2, ranges=np.full(BEAMS, r, np.float32)))
        for s, r in begins.items()
    ]
    path = write(tmp_path / "a.mcap", images([image]), parts, mounting())
    (sample,) = open_dataset(path)
    at_laser = transform(np.linalg.inv(RIGHT_POSE), sample.frame.points)
    assert np.linalg.norm(at_laser, axis=1) == pytest.approx(1.0, abs=1e-5)
    dataset = open_dataset(path, max_scan_age=0.005)
    assert [s.frame.points for s in dataset] == [None]
    assert (
        "1 images without points (none in time): the nearest of /scan is 0.01 s away, more"
        in (dataset.notes()[1])
    )


def test_the_age_of_a_scan_is_that_of_the_node():
    default = inspect.signature(BagDataset).parameters["max_scan_age"].default
    assert default == CompletionSettings().max_scan_age


def test_a_bad_scan_is_refused_and_named_and_the_others_still_count(tmp_path):
    bad = {
        2: {"angle_max": 5.0}, 3: {"ranges": np.full(BEAMS, np.inf, np.float32)},
        4: {"ranges": np.zeros(0, np.float32)},
    }  # fmt: skip
    parts = [("/scan", s, SCAN, laser_scan(s, **bad.get(i, {}))) for i, s in enumerate(STAMPS)]
    path = write(tmp_path / "a.mcap", images(STAMPS), parts, mounting())
    dataset = open_dataset(path, max_scan_age=0.1)
    assert [s.frame.points is None for s in dataset] == [False, False, True, True, True, False]
    said = " ".join(dataset.notes())
    assert "3 messages of /scan refused: scan: expected ranges from -1.4 to 5 rad" in said
    assert "3 images without points (none in time)" in said


def test_scans_of_another_clock_are_no_points_and_an_error_when_they_were_asked_for(tmp_path):
    late = [(t, at, k, laser_scan(at + 3600 * SECOND)) for t, at, k, _ in scans(STAMPS)]
    path = write(tmp_path / "a.mcap", images(STAMPS), late, mounting())
    dataset = open_dataset(path)
    assert all(s.frame.points is None for s in dataset)
    assert "6 images without points" in dataset.notes()[1]
    assert "is 3600 s away, more than 0.2 s; are they stamped by different" in dataset.notes()[1]
    with pytest.raises(BagError, match=r"no image has anything of /scan .* different clocks"):
        list(open_dataset(path, scan_topic="/scan"))


# ---- what the transforms say ---------------------------------------------------------------------


def test_frames_that_are_not_connected_are_named(tmp_path):
    path = write(tmp_path / "a.mcap", images(STAMPS), scans(STAMPS), odometry(STAMPS))
    dataset = open_dataset(path)
    assert all(s.frame.points is None for s in dataset)
    expected = "6 images without points (frames not connected): there is no frame"
    assert expected in dataset.notes()[1] and OPTICAL_FRAME in dataset.notes()[1]
    with pytest.raises(BagError, match=r"anything of /scan so far: there is no frame 'camera_opt"):
        list(open_dataset(path, scan_topic="/scan"))


@pytest.mark.parametrize("kind", ["stops", "jumps"])
def test_transforms_that_stop_or_jump_leave_the_rigid_place_and_never_another(tmp_path, kind):
    """The scan is 50 ms older than the image, so 4 cm and 1.4° away at most; a jump is 9 m."""
    odom = list(odometry(every(0.05)))
    if kind == "stops":
        odom = odom[:12]
    else:
        away = pose([9, 0, 0], [0, 0, 0, 1])
        odom[12:] = [
            ("/tf", s, TF, transforms((s, "odom", "base", away @ base_pose(s / SECOND))))
            for _, s, _, _ in odom[12:]
        ]
    stamps = [s - 50_000_000 for s in STAMPS]
    path = write(tmp_path / "a.mcap", images(STAMPS), scans(stamps), odom, mounting())
    dataset = open_dataset(path)
    off = np.array([to_walls(in_room(sample)).max() for sample in dataset])
    assert len(off) == 6 and (off < 0.2).all() and (off < 3e-3).any()
    (note,) = [n for n in dataset.notes() if "taken to stand" in n]
    assert note.startswith(f"{(off > 3e-3).sum()} images with points of a robot taken to stand:")
    assert "odom → base " + ("jumps by 9" if kind == "jumps" else "is not known at") in note


def test_a_laser_on_a_turning_head_is_placed_where_the_head_was(tmp_path):
    """base → head turns at 2 rad/s; the laser on it sees one point of the room, at x = 3, y = 1."""
    parts, odom = [], []
    for s in every(0.02):
        turned = pose([0, 0, 0.3], [0, 0, np.sin(s / SECOND), np.cos(s / SECOND)])
        odom.append(("/tf", s, TF, transforms((s, "base", "head", turned))))
    for s in every(0.125):
        turned = pose([0, 0, 0.3], [0, 0, np.sin(s / SECOND), np.cos(s / SECOND)])
        seen = transform(np.linalg.inv(turned), np.array([[3, 1, 0.9]]))
        parts += clouds([s], seen, "/lidar/points", "head")
    frames = [("/tf_static", 0, TF, transforms((0, "base", OPTICAL_FRAME, T_BASE_CAMERA)))]
    path = write(tmp_path / "a.mcap", images(STAMPS), parts, odom, frames)
    for sample in open_dataset(path, truth_topic="none"):
        at_base = transform(T_BASE_CAMERA, sample.frame.points)
        assert at_base == pytest.approx(np.array([[3, 1, 0.9]]), abs=2e-3)


def test_a_transform_without_a_stamp_holds_for_all_time(tmp_path):
    static = [("/tf", SECOND // 2, *rest) for _, _, *rest in mounting(0)]
    dataset = open_dataset(write(tmp_path / "a.mcap", images(STAMPS), scans(STAMPS), static))
    assert all(to_walls(in_room(sample)).max() < 1e-5 for sample in dataset)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1 2 3", "'1 2 3'"), ([0, 0, 0, 0, 0, 0, 0], "quaternion"), ("a b c d e f g", "metres"),
     ([np.nan, 0, 0, 0, 0, 0, 1], "nan")],
)  # fmt: skip
def test_a_pose_that_is_none_is_refused(tmp_path, given, expected):
    path = write(tmp_path / "a.mcap", images(STAMPS), scans(STAMPS))
    with pytest.raises(BagError, match="laser_to_camera: expected x y z qx qy qz qw") as error:
        open_dataset(path, laser_to_camera=given)
    assert expected in str(error.value)


# ---- which topics --------------------------------------------------------------------------------

DEPTH = np.full((48, 64), 2.0, np.float32)
DEPTH_TOPIC = "/camera/depth/image_raw"


@pytest.mark.parametrize(
    ("has", "asked", "expected"),
    [
        ("laser depth", {}, ("/scan", DEPTH_TOPIC)),
        ("laser cloud depth", {}, ("/scan", DEPTH_TOPIC)),
        ("cloud depth", {}, ("/lidar/points", DEPTH_TOPIC)),
        ("laser cloud", {}, ("/scan", "/lidar/points")),
        ("cloud", {}, (None, "/lidar/points")),
        ("cloud", {"truth_topic": "none"}, ("/lidar/points", None)),
        ("cloud", {"scan_topic": "/lidar/points"}, ("/lidar/points", None)),
        ("cloud", {"scan_topic": "/lidar/points", "truth_topic": "/lidar/points"},
         ("/lidar/points", "/lidar/points")),
        ("laser", {}, ("/scan", None)),
        ("laser", {"truth_topic": "/scan"}, (None, "/scan")),
        ("laser depth", {"truth_topic": "/scan", "scan_topic": "/scan"}, ("/scan", "/scan")),
        ("laser depth", {"scan_topic": "none", "truth_topic": "none"}, (None, None)),
        ("laser other", {}, (None, None)),
        ("laser other", {"scan_topic": "/rear/scan"}, ("/rear/scan", None)),
        ("depth made", {}, (None, DEPTH_TOPIC)),
    ],
)  # fmt: skip
def test_scan_and_truth_are_found_by_type_and_chosen_by_name(tmp_path, has, asked, expected):
    one, at = np.ones((1, 3), np.float32), STAMPS[:1]
    parts = {
        "laser": scans(at),
        "other": [("/rear/scan", s, SCAN, laser_scan(s)) for s in at],
        "cloud": clouds(at, one),
        "made": clouds(at, one, "/camera/depth/points", OPTICAL_FRAME),
        "depth": [],
    }
    pictures = images(at, depth_m=DEPTH if "depth" in has else None)
    path = write(tmp_path / "a.mcap", pictures, *(parts[w] for w in has.split()))
    dataset = open_dataset(path, **asked)
    assert (dataset.topics.scan, dataset.topics.truth) == expected
    if has == "laser other" and not asked:
        said = "several scan topics, choose one with --scan-topic: /rear/scan, /scan"
        assert said in dataset.notes()[0]


def test_a_topic_of_another_kind_is_refused(tmp_path):
    path = write(tmp_path / "a.mcap", images(STAMPS, depth_m=DEPTH), scans(STAMPS))
    for option, topic, expected in (
        ("scan_topic", DEPTH_TOPIC, "LaserScan or sensor_msgs/msg/PointCloud2, it is a sensor_m"),
        ("image_topic", "/scan", "Image or sensor_msgs/msg/CompressedImage"),
        ("mask_topic", "/nothing", "there is no topic /nothing in it; it has"),
    ):
        with pytest.raises(BagError) as error:
            open_dataset(path, **{option: topic})
        assert expected in str(error.value)


# ---- LiDAR as truth ------------------------------------------------------------------------------

LENSES = [
    None,
    ("plumb_bob", [-0.28, 0.07, 0.0008, -0.0005, 0.01]),
    ("equidistant", [0.1, 0.02, 0.0, 0.0]),
]


@pytest.mark.parametrize("lens", LENSES, ids=["pinhole", "plumb_bob", "equidistant"])
def test_a_cloud_is_truth_where_opencv_projects_its_points(tmp_path, lens):
    model, D = lens or ("plumb_bob", [])
    camera = Camera(64, 48, CAMERA.K, np.array(D), model)
    rng = np.random.default_rng(2)
    seen = rng.uniform((-1.5, -1.0, 1.0), (1.5, 1.0, 5.0), (60, 3))
    # Far to the side and behind: a lens model would bend some of these back into the image.
    beside = rng.uniform((2.5, -6, 0.3), (9, 6, 0.9), (200, 3)) * rng.choice([-1, 1], (200, 1))
    beside[:, 2] = np.abs(beside[:, 2])
    points = np.vstack([seen, beside, seen * (1, 1, -1), np.zeros((1, 3))]).astype(np.float32)
    at_laser = transform(np.linalg.inv(RIGHT_POSE), points)
    path = write(
        tmp_path / "a.mcap", images(STAMPS[:1], camera), clouds(STAMPS[:1], at_laser), mounting()
    )
    (sample,) = open_dataset(path)
    expected = np.zeros((48, 64))
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    coefficients = camera.D if lens else np.zeros(4)
    uv = project(seen[:, None], np.zeros(3), np.zeros(3), CAMERA.K, coefficients)[0][:, 0]
    for (u, v), z in sorted(zip(np.rint(uv), seen[:, 2]), key=lambda item: -item[1]):
        if 0 <= u < 64 and 0 <= v < 48:
            expected[int(v), int(u)] = z
    assert (expected > 0).sum() > 20
    got = sample.truth_m
    # A point at the very edge of a pixel may fall on either side of it.
    assert ((got > 0) != (expected > 0)).mean() < 0.002
    both = (got > 0) & (expected > 0)
    assert got[both] == pytest.approx(expected[both], abs=1e-4)


def test_a_scan_as_truth_moves_with_the_robot_as_points_do(tmp_path):
    path = write(
        tmp_path / "a.mcap", images(STAMPS), scans(every(0.125), sweep_s=0.09),
        odometry(every(0.05)), mounting(),
    )  # fmt: skip
    dataset = open_dataset(path, scan_topic="/scan", truth_topic="/scan")
    for sample in dataset:
        assert np.array_equal(sample.truth_m, points_to_depth(sample.frame.points, CAMERA))
        assert (sample.truth_m > 0).sum() > 20


def test_depth_of_a_camera_that_moves_by_tf_is_registered_at_every_stamp(tmp_path):
    """A wall with a step; the depth camera slides 0.1 m/s: 80 px * 0.1 m / 2 m = 4 px a second."""
    camera = Camera(64, 48, np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]))
    depth_mm = np.full((48, 64), 2000, np.uint16)
    depth_mm[:, 20:] = 4000
    parts, stamps = [], [SECOND + i * SECOND for i in range(4)]
    for i, s in enumerate(stamps):
        message = mono(s, depth_mm, "16UC1")
        message.header.frame_id = "slider"
        parts.append((DEPTH_TOPIC, s, IMAGE, message))
        edge = (s, OPTICAL_FRAME, "slider", pose([0.1 * i, 0, 0], [0, 0, 0, 1]))
        parts.append(("/tf", s, TF, transforms(edge)))
    pictures = list(images(stamps, camera))
    info = [("/camera/depth/camera_info", *rest) for t, *rest in pictures if t.endswith("info")]
    for i, sample in enumerate(open_dataset(write(tmp_path / "a.mcap", pictures, parts, info))):
        truth, near, far = sample.truth_m, 4 * i, 2 * i
        assert (truth[:, near : 20 + near] == 2).all() and (truth[:, 20 + near :] == 4).all()
        assert (truth[:, :far] == 0).all()


# ---- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["/camera/moving", "/camera/dynamic/image_raw", "/x/mask"])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "32SC1"])
def test_a_mask_says_what_moves_in_the_image_of_its_stamp(tmp_path, topic, encoding):
    labels = np.random.default_rng(4).integers(-1, 3, (48, 64)).astype(np.int32)
    stored = labels if encoding == "32SC1" else np.maximum(labels, 0).astype(np.uint8)
    parts = [(topic, s, IMAGE, mono(s, stored, encoding)) for s in STAMPS[::2]]
    dataset = open_dataset(write(tmp_path / "a.mcap", images(STAMPS), parts))
    assert dataset.topics.mask == topic and dataset.topics.image == "/camera/image_raw"
    for i, sample in enumerate(dataset):
        if i % 2:
            assert sample.moving is None
        else:
            assert sample.moving.dtype == bool and np.array_equal(sample.moving, labels > 0)
    assert dataset._seek(2).moving.any()
    assert open_dataset(dataset.path, mask_topic="none")[0].moving is None


def test_a_mask_may_have_any_name_and_none_but_the_size_of_its_image(tmp_path):
    mask = np.ones((48, 64), np.uint8)
    parts = [("/people", s, IMAGE, mono(s, mask, "mono8")) for s in STAMPS]
    path = write(tmp_path / "a.mcap", images(STAMPS), parts)
    assert open_dataset(path)[0].moving is None
    assert open_dataset(path, mask_topic="/people")[0].moving.all()
    parts = [("/moving", s, IMAGE, mono(s, mask[:20], "mono8")) for s in STAMPS]
    path = write(tmp_path / "b.mcap", images(STAMPS), parts)
    with pytest.raises(BagError, match="its mask on /moving is 64x20, the image 64x48"):
        open_dataset(path)[0]
