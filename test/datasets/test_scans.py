"""LiDAR messages against points computed by hand; rings against clouds made of known rings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mde_ros.datasets.scans import ScanError, cloud_returns, pseudo_rings, ring, scan_returns
from mde_ros.frame import Camera
from mde_ros.geometry import points_to_depth, pose, transform

random = np.random.default_rng(3)


def scan(ranges, **fields):
    """Rays at -90, 0, 90 degrees … unless told otherwise."""
    count = len(ranges)
    given = {"angle_min": -np.pi / 2, "angle_increment": np.pi / 2, "time_increment": 0.01,
             "range_min": 0.1, "range_max": 10.0, **fields}  # fmt: skip
    end = given["angle_min"] + given["angle_increment"] * (count - 1)
    return SimpleNamespace(ranges=np.array(ranges, np.float32), **{"angle_max": end, **given})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("message", "points", "seconds"),
    [
        (scan([1, 2, 3]), [(0, -1, 0), (2, 0, 0), (0, 3, 0)], [0, 0.01, 0.02]),
        (scan([1, np.nan, 3]), [(0, -1, 0), (0, 3, 0)], [0, 0.02]),
        (scan([np.inf, 2, -np.inf]), [(2, 0, 0)], [0.01]),
        (scan([np.inf, 2, 3], range_max=np.inf), [(2, 0, 0), (0, 3, 0)], [0.01, 0.02]),
        (scan([0, 2, 3], range_min=0.0), [(2, 0, 0), (0, 3, 0)], [0.01, 0.02]),
        (scan([0.05, 11, 5]), [(0, 5, 0)], [0.02]),
        (scan([0.05, 11, np.nan]), [], []),
        (scan([]), [], []),
        (scan([4], angle_min=0.0, angle_increment=0.0), [(4, 0, 0)], [0]),
        (scan([1, 2, 3], angle_min=np.pi / 2, angle_increment=-np.pi / 2),
         [(0, 1, 0), (2, 0, 0), (0, -3, 0)], [0, 0.01, 0.02]),
        # Drivers that give the angle behind the last ray, or one ray more for a full circle.
        (scan([1, 2, 3], angle_max=np.pi), [(0, -1, 0), (2, 0, 0), (0, 3, 0)], [0, 0.01, 0.02]),
        (scan([1, 2, 3], angle_max=0.0), [(0, -1, 0), (2, 0, 0), (0, 3, 0)], [0, 0.01, 0.02]),
    ],
    ids=["plain", "nan", "inf", "endless range", "zero", "out of range", "nothing in range",
         "no beams", "one beam", "clockwise", "one fewer", "one more"],
)  # fmt: skip
def test_a_scan_gives_the_points_computed_by_hand(message, points, seconds):
    returns = scan_returns(message)
    assert returns.points == pytest.approx(np.reshape(points, (-1, 3)), abs=1e-6)
    assert returns.seconds == pytest.approx(np.array(seconds))
    assert returns.points.dtype == np.float32


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (scan([1, 2, 3], angle_max=3 * np.pi), "by 1.5708, got 3 of them"),
        (scan([1] * 9, angle_max=np.pi), "got 9 of them"),
        (scan([1, 2], angle_increment=0.0), "got 2 of them"),
        (scan([1], angle_max=np.pi), "got 1 of them"),
        (scan([1, 2, 3], range_min=5.0, range_max=1.0), "range_min <= range_max, got 5 and 1"),
        (scan([1, 2, 3], range_max=np.nan), "range_min <= range_max"),
        (scan([1, 2, 3], angle_min=np.nan), "finite angle_min"),
        (scan([1, 2, 3], angle_increment=np.inf), "finite angle_max, got inf"),
        (scan([1, 2, 3], time_increment=np.nan), "finite time_increment"),
        (scan([1, 2, 3], time_increment=10.0), "within 1 s, got 30 s"),
    ],
)
def test_a_scan_that_contradicts_itself_is_refused(message, expected):
    with pytest.raises(ScanError, match="scan: expected") as error:
        scan_returns(message)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_returns_are_placed_by_the_pose_of_their_own_moment():
    """The laser moves 2 m along x from the first to the last return: half of it at the middle."""
    returns = scan_returns(scan([1, 2, 3]))
    assert returns.sweep_s == pytest.approx((0, 0.02))
    first, last = np.eye(4), pose([2, 0, 0], [0, 0, 0, 1])
    expected = np.array([(0, -1, 0), (3, 0, 0), (2, 3, 0)])
    assert returns.seen_from(first, last) == pytest.approx(expected, abs=1e-6)
    # Without the middle ray, and without the first: shares are of the returns there are.
    assert scan_returns(scan([1, np.nan, 3])).seen_from(first, last) == pytest.approx(
        expected[[0, 2]], abs=1e-6
    )
    assert scan_returns(scan([np.nan, np.nan, 3])).sweep_s == pytest.approx((0.02, 0.02))
    empty = scan_returns(scan([]))
    assert empty.sweep_s == (0, 0) and empty.seen_from(first, last).shape == (0, 3)


# ---- point clouds --------------------------------------------------------------------------------

KINDS = {"u1": 2, "u2": 4, "u4": 6, "f4": 7, "f8": 8}


def cloud(columns, big=False, lead=0, gap=0, tail=0, row_padding=0, height=1):
    """PointCloud2 of {name: (dtype, values)}, with unused bytes around its fields and rows."""
    order, offset, fields, size = ">" if big else "<", lead, [], len(columns["x"][1])
    places = []
    for name, (kind, _) in columns.items():
        fields.append(SimpleNamespace(name=name, offset=offset, datatype=KINDS[kind], count=1))
        places.append(offset)
        offset += np.dtype(kind).itemsize + gap
    step = offset + tail
    raw = random.integers(0, 256, (size, step), dtype=np.uint8)
    for place, (kind, values) in zip(places, columns.values(), strict=True):
        stored = np.asarray(values).astype(order + kind)
        octets = np.frombuffer(stored.tobytes(), np.uint8).reshape(size, stored.itemsize)
        raw[:, place : place + stored.itemsize] = octets
    width = size // height
    rows = raw.reshape(height, width * step)
    noise = random.integers(0, 256, (height, row_padding), dtype=np.uint8)
    data = np.hstack([rows, noise]).ravel()
    return SimpleNamespace(
        fields=fields, is_bigendian=big, height=height, width=width, point_step=step,
        row_step=width * step + row_padding, data=data,
    )  # fmt: skip


POINTS = random.normal(size=(12, 3)).astype(np.float32)
XYZ = {axis: ("f4", POINTS[:, i]) for i, axis in enumerate("xyz")}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "layout",
    [{}, {"lead": 3, "gap": 1, "tail": 5}, {"height": 3}, {"height": 4, "row_padding": 7}],
    ids=["packed", "unaligned", "organised", "padded rows"],
)
def test_a_cloud_of_any_layout_gives_its_points(big, layout):
    for columns in (
        XYZ,
        {"intensity": ("f4", np.zeros(12)), "z": XYZ["z"], "ring": ("u2", range(12)), **XYZ},
        {axis: ("f8", values) for axis, (_, values) in XYZ.items()},
    ):
        returns = cloud_returns(cloud(columns, big=big, **layout))
        assert np.array_equal(returns.points, POINTS) and returns.points.dtype == np.float32
        assert not returns.seconds.any() and returns.seconds.shape == (12,)


def test_what_is_no_measurement_of_a_cloud_is_left_out():
    columns = {axis: (kind, values.copy()) for axis, (kind, values) in XYZ.items()}
    columns["x"][1][2], columns["y"][1][5], columns["z"][1][7] = np.nan, np.inf, -np.inf
    for axis in "xyz":
        columns[axis][1][9] = 0
    returns = cloud_returns(cloud(columns))
    assert np.array_equal(returns.points, np.delete(POINTS, [2, 5, 7, 9], 0))
    assert cloud_returns(cloud({a: ("f4", []) for a in "xyz"})).points.shape == (0, 3)


def test_times_of_a_cloud_are_those_of_its_driver():
    nanoseconds = np.arange(12) * 8_000_000
    ouster = cloud_returns(cloud({**XYZ, "t": ("u4", nanoseconds)}))
    assert ouster.seconds == pytest.approx(nanoseconds * 1e-9)
    velodyne = cloud_returns(cloud({**XYZ, "time": ("f4", nanoseconds * 1e-9 - 0.1)}))
    assert velodyne.sweep_s == pytest.approx((-0.1, -0.012))
    for other in ({"t": ("f4", nanoseconds)}, {"stamp": ("f8", nanoseconds)}):
        assert not cloud_returns(cloud({**XYZ, **other})).seconds.any()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda m: m.fields.pop(), "expected z as float32"),
        (lambda m: setattr(m.fields[1], "datatype", 5), "expected y as float32"),
        (lambda m: setattr(m, "data", m.data[:-1]), "and 143 bytes"),
        (lambda m: setattr(m, "width", 13), "1 rows of 13 points"),
        (lambda m: setattr(m, "point_step", 8), "point_step 8"),
        (lambda m: (setattr(m, "height", 2), setattr(m, "width", 6)) and setattr(m, "row_step", 9),
         "row_step 9"),
    ],
)  # fmt: skip
def test_a_cloud_that_contradicts_itself_is_refused(spoil, expected):
    message = cloud(XYZ)
    spoil(message)
    with pytest.raises(ScanError, match="cloud: expected") as error:
        cloud_returns(message)
    assert expected in str(error.value)


def test_a_cloud_with_times_in_another_unit_is_refused():
    with pytest.raises(ScanError, match="sweep within 1 s, got 88"):
        cloud_returns(cloud({**XYZ, "time": ("f4", np.arange(12) * 8.0)}))


@pytest.mark.parametrize("height", [1, 3])
def test_live_messages_give_what_stored_ones_give(height):
    messages = pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is not installed")
    stored = cloud({**XYZ, "t": ("u4", range(12))}, height=height, gap=2)
    live = messages.PointCloud2(
        height=stored.height, width=stored.width, point_step=stored.point_step,
        row_step=stored.row_step,
        fields=[messages.PointField(**vars(field)) for field in stored.fields],
    )  # fmt: skip
    live.data.frombytes(stored.data.tobytes())
    a, b = cloud_returns(live), cloud_returns(stored)
    assert np.array_equal(a.points, b.points) and np.array_equal(a.seconds, b.seconds)
    fields = vars(scan([1, np.nan, 3]))
    fields["ranges"] = fields["ranges"].tolist()
    live = scan_returns(messages.LaserScan(**fields))
    assert live.points == pytest.approx(scan_returns(scan([1, np.nan, 3])).points, abs=1e-6)


# ---- rings ---------------------------------------------------------------------------------------


def lidar_64():
    """A 64-ring cloud, rings 0.4° apart, 2048 azimuths; the label and ray of every point."""
    elevation = np.radians(2.0 - 0.4 * (np.arange(64) + 0.5))[:, None]
    azimuth = np.radians(np.arange(2048) * (360 / 2048) - 180 + 0.05)
    distance = random.uniform(3, 60, (64, 2048))
    flat = distance * np.cos(elevation)
    points = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)], -1
    )
    return points.astype(np.float32)


def test_a_ring_is_one_return_per_azimuth_of_its_own_line():
    points = lidar_64()
    mixed = random.permutation(points.reshape(-1, 3))
    got = ring(mixed, row=9)
    # 2048 azimuths around are 512 in the 90° ahead, each with a column of the 1024 of its own.
    ahead = points[9][np.abs(np.degrees(np.arctan2(points[9][:, 1], points[9][:, 0]))) < 45]
    assert len(ahead) == 512 and np.array_equal(got, ahead[::-1])  # from left to right
    assert np.array_equal(ring(mixed, row=0), points[0, 768:1280][::-1])


def test_of_several_returns_in_one_azimuth_the_nearest_is_kept():
    points = lidar_64()
    got = ring(points.reshape(-1, 3), row=30, columns=128)
    distance = np.linalg.norm(points[30, 768:1280][::-1], axis=1).reshape(128, 4)
    assert np.linalg.norm(got, axis=1) == pytest.approx(distance.min(1))
    assert ring(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert ring(np.zeros((1, 3), np.float32)).shape == (0, 3)


def test_pseudo_rings_tell_the_rings_of_a_projected_cloud_apart():
    """65 rings evenly from top to bottom, projected at high resolution: every pixel has its own."""
    down = np.radians(np.linspace(-3, 20, 65))  # elevation of each, positive is down
    azimuth = np.radians(np.linspace(-30, 30, 200))
    distance = 12.0
    points = np.array([
        [distance * np.cos(d) * np.sin(a), distance * np.sin(d), distance * np.cos(d) * np.cos(a)]
        for d in down for a in azimuth
    ])  # fmt: skip
    camera = Camera(4000, 1600, np.array([[3000, 0, 2000], [0, 3000, 300], [0, 0, 1.0]]))
    labels = pseudo_rings(points_to_depth(points, camera), camera)
    uv = np.rint(transform(np.eye(4), points)[:, :2] / points[:, 2:] * 3000 + (2000, 300))
    expected = np.repeat(np.arange(65), 200)
    assert np.array_equal(labels[uv[:, 1].astype(int), uv[:, 0].astype(int)], expected)
    assert (labels >= 0).sum() == len(points)


def test_pseudo_rings_of_no_depth_are_none(camera):
    assert (pseudo_rings(np.zeros((48, 64), np.float32), camera) == -1).all()
    one = np.zeros((48, 64), np.float32)
    one[3, 4] = 2
    assert pseudo_rings(one, camera).max() == 0 and (pseudo_rings(one, camera) == 0).sum() == 1
