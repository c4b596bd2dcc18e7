"""Which points belong to an image: hand-computed points and poses, without any node."""

from array import array

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from robot import cloud_message, scan_message, stamped
from sensor_msgs.msg import LaserScan

from mde_ros.config import CompletionSettings
from mde_ros.frame import Camera, Prediction
from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.laser_pose import LaserPose
from mde_ros.nodes.scan_statistics import ScanStatistics
from mde_ros.nodes.scan_stream import ScanStream

CAMERA = Camera(64, 48, np.array([[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1.0]]))
# 0.2 m below the camera and 0.01 m to its right, looking the same way: forward, left and up are
# z, -x and -y of the camera.
BELOW = "0.01 0.2 0 0.5 -0.5 0.5 0.5"
BEHIND = "0.01 0.2 0 0.5 0.5 -0.5 0.5"  # the same, turned half around: forward is -z
MS = 1_000_000


class Bench:
    """A ScanStream, what it warned of, and images to ask with."""

    def __init__(self, **settings):
        self.settings = CompletionSettings(**{"laser_to_camera": BELOW, **settings})
        self.warnings = []
        self.statistics = ScanStatistics(self.warnings.append)
        pose = LaserPose(self.settings, None)
        self.scans = ScanStream(lambda: self.settings, "/scan", pose, self.statistics)

    def ask(self, stamp_ns=1_000_000_000):
        return self.scans.points_for(stamped(LaserScan(), stamp_ns, "cam").header, CAMERA)

    def reason(self, stamp_ns=1_000_000_000):
        with pytest.raises(Rejected) as error:
            self.ask(stamp_ns)
        return error.value.reason, str(error.value)


def test_rays_become_points_in_the_frame_of_the_camera_at_their_pixels():
    bench = Bench()
    # To the right by 0.5 rad (out of view from 0.56 on), straight ahead, to the left.
    bench.scans.take_scan(scan_message([2, 1, 4], first=-0.5, step=0.5))
    seen = bench.ask()
    sine, cosine = np.sin(0.5), np.cos(0.5)
    expected = np.array([[2 * sine, 0.2, 2 * cosine], [0, 0.2, 1], [-4 * sine, 0.2, 4 * cosine]])
    assert seen.points == pytest.approx(expected + [0.01, 0, 0], abs=1e-6)
    assert seen.points.dtype == np.float32
    # 50 tan 0.5 = 27.3 columns; 50 * 0.2 / z = 5.7, 10 and 2.8 rows below the middle.
    assert seen.columns.tolist() == [59, 32, 4]
    assert seen.rows.tolist() == [29, 34, 26]


def test_a_scan_that_turns_the_other_way_is_read_as_it_says():
    bench = Bench()
    bench.scans.take_scan(scan_message([2, 1, 4], first=0.5, step=-0.5))
    assert bench.ask().columns.tolist() == [4, 32, 59]


def test_a_cloud_of_the_same_points_gives_the_same():
    scan, cloud = Bench(), Bench()
    ranges, angles = np.array([2.0, 1.0, 4.0]), np.array([-0.5, 0, 0.5])
    points = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), 0 * angles], 1)
    scan.scans.take_scan(scan_message(ranges, first=-0.5, step=0.5))
    cloud.scans.take_scan(cloud_message([*points, [np.nan] * 3, [0, 0, 0]]))
    one, two = scan.ask(), cloud.ask()
    assert one.points == pytest.approx(two.points, abs=1e-6)
    assert (one.rows.tolist(), one.columns.tolist()) == (two.rows.tolist(), two.columns.tolist())


def test_only_what_the_camera_sees_is_handed_on():
    bench = Bench()
    bench.scans.take_scan(scan_message(np.full(63, 3.0), first=-3.1, step=0.1))
    angles = -3.1 + 0.1 * np.arange(63)
    columns = 31.5 + 50 * (0.01 - 3 * np.sin(angles)) / (3 * np.cos(angles))
    expected = columns[(np.cos(angles) > 0) & (abs(columns - 31.5) < 32)]
    assert 10 <= len(expected) <= 12, "a sixth of the circle"
    assert bench.ask().columns.tolist() == np.rint(expected).tolist()


# The nearest in time, or none


@pytest.mark.parametrize(("stamp_ms", "metres"), [(900, 1), (960, 2), (1040, 2), (1150, 3)])
def test_the_scan_nearest_in_time_is_taken_before_or_after_the_image(stamp_ms, metres):
    bench = Bench()
    for scan, scan_ms in ((1, 900), (2, 1000), (3, 1100)):
        bench.scans.take_scan(scan_message([scan], stamp_ns=scan_ms * MS))
    assert bench.ask(stamp_ms * MS).points[0, 2] == metres


def test_the_time_of_a_scan_is_the_middle_of_its_sweep():
    """Two sweeps of 0.1 s: the image at 1.01 s is 0.04 s before one's middle, 0.06 s after other's.

    By their stamps it would be the other way round.
    """
    bench = Bench()
    for metres, stamp_ms in ((1, 900), (2, 1000)):
        ranges = [metres] * 11
        bench.scans.take_scan(scan_message(ranges, -0.5, 0.1, stamp_ms * MS, ray_s=0.01))
    assert bench.ask(1010 * MS).points[5, 2] == pytest.approx(2)
    assert bench.statistics._used[-1][0] == pytest.approx(-0.04)


@pytest.mark.parametrize(("offset_ms", "word"), [(210, "older"), (-210, "newer")])
def test_a_scan_too_far_from_the_image_is_none_and_the_distance_is_told(offset_ms, word):
    bench = Bench(max_scan_age=0.2)
    bench.scans.take_scan(scan_message([2]))
    assert bench.ask(1_000 * MS + np.sign(offset_ms) * 199 * MS) is not None
    reason, text = bench.reason((1_000 + offset_ms) * MS)
    assert reason == "scan_age" and f"0.210 s {word}" in text and "/scan" in text


def test_clocks_that_are_years_apart_are_told_and_never_matched():
    bench = Bench(max_scan_age=1.0)
    bench.scans.take_scan(scan_message([2], stamp_ns=5 * 1_000 * MS))  # since the robot's start
    reason, text = bench.reason(1_700_000_000_000 * MS)
    assert reason == "scan_age" and "clock" in text and "1699999995.000 s older" in text


def test_without_any_scan_the_topic_is_named():
    reason, text = Bench().reason()
    assert reason == "no_scan" and "/scan" in text


def test_scans_older_than_the_window_are_forgotten():
    bench = Bench(max_scan_age=1.0)
    for i in range(1, 201):
        bench.scans.take_scan(scan_message([2], stamp_ns=i * 100 * MS))
    assert len(bench.scans._window) == 21


def test_of_scans_that_all_say_the_same_time_the_last_counts_and_few_are_kept():
    """A driver whose clock stands still."""
    bench = Bench()
    for i in range(1000):
        bench.scans.take_scan(scan_message([1 + i / 1000], stamp_ns=1_000 * MS))
    assert bench.ask().points[0, 2] == pytest.approx(1.999)
    assert len(bench.scans._window) < 300


def test_after_a_jump_back_in_time_older_scans_are_no_longer_matched():
    """A bag that starts over after 0.1 s: the scans of its first run lie in the future."""
    bench = Bench()
    for metres, stamp_ms in ((1, 1000), (2, 1100), (3, 1000)):
        bench.scans.take_scan(scan_message([metres], stamp_ns=stamp_ms * MS))
    assert bench.ask(1090 * MS).points[0, 2] == 3
    assert bench.statistics.scan_jumps == 1 and "back by 0.100 s" in bench.warnings[0]


def test_depth_goes_on_without_a_scan_where_the_parameters_say_so():
    bench = Bench(on_missing_scan="monocular")
    assert bench.ask() is None
    bench.scans.take_scan(scan_message([2]))
    assert bench.ask(3_000 * MS) is None
    assert bench.statistics.frames_monocular == {"no_scan": 1, "scan_age": 1}
    assert bench.ask() is not None and bench.statistics.frames_completed == 1


# Scans that cannot be used


def changed(**values):
    msg = scan_message([2, 2, 2])
    for name, value in values.items():
        setattr(msg, name, value)
    return msg


def no_z():
    msg = cloud_message([[1, 0, 0]])
    msg.fields = [f for f in msg.fields if f.name != "z"]
    return msg


def short_cloud():
    msg = cloud_message([[1, 0, 0]] * 3)
    msg.data = array("B", bytes(msg.data)[:-5])
    return msg


BAD = [
    (scan_message([]), "scan_empty", "none of 0 beams"),
    (scan_message([np.nan] * 4), "scan_empty", "none of 4 beams"),
    (scan_message([np.inf, -np.inf, 0.05, 31]), "scan_empty", "none of 4 beams"),
    (changed(angle_max=1.0), "scan_invalid", "got 3 of them"),
    (changed(ranges=[2.0]), "scan_invalid", "got 1 of them"),
    (changed(ranges=[2.0] * 9), "scan_invalid", "got 9 of them"),
    (changed(angle_increment=0.0), "scan_invalid", "by 0"),
    (changed(angle_increment=-0.1), "scan_invalid", "by -0.1"),
    (changed(angle_min=float("nan")), "scan_invalid", "finite angle_min"),
    (changed(time_increment=1.0), "scan_invalid", "sweep within 1 s"),
    (changed(range_max=0.0), "scan_invalid", "range_min <= range_max"),
    (scan_message([2], stamp_ns=0), "scan_no_stamp", "stamp of 0"),
    (cloud_message([]), "scan_empty", "none of 0 beams"),
    (cloud_message([[np.nan, 0, 0], [0, 0, 0]]), "scan_empty", "none of 2 beams"),
    (no_z(), "scan_invalid", "expected z"),
    (short_cloud(), "scan_invalid", "bytes"),
]


@pytest.mark.parametrize(("msg", "reason", "words"), BAD)
def test_a_scan_that_contradicts_itself_or_measured_nothing_is_counted_and_never_used(
    msg, reason, words
):
    bench = Bench()
    bench.scans.take_scan(msg)
    assert bench.statistics.rejected == {reason: 1} and bench.statistics.scans_in == 1
    assert words in bench.warnings[0]
    assert bench.reason()[0] == "no_scan"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 0.05, 31.0, -2.0])
def test_a_ray_without_a_measurement_leaves_the_others_where_they_are(value):
    bench = Bench()
    bench.scans.take_scan(scan_message([2, value, 4], first=-0.5, step=0.5))
    seen = bench.ask()
    assert seen.columns.tolist() == [59, 4]


def test_a_laser_that_looks_backwards_is_no_scan():
    bench = Bench(laser_to_camera=BEHIND)
    bench.scans.take_scan(scan_message([2, 2, 2], first=-0.1))
    reason, text = bench.reason()
    assert reason == "scan_out_of_view" and "pose of the laser" in text
    bench = Bench(laser_to_camera=BEHIND, on_missing_scan="monocular")
    bench.scans.take_scan(scan_message([2, 2, 2], first=-0.1))
    assert bench.ask() is None and bench.statistics.frames_monocular == {"scan_out_of_view": 1}


@pytest.mark.parametrize("policy", ["drop", "monocular"])
def test_without_a_pose_of_the_laser_there_is_nothing_whatever_the_policy(policy):
    bench = Bench(laser_to_camera="", on_missing_scan=policy)
    bench.scans.take_scan(scan_message([2]))
    reason, text = bench.reason()
    assert reason == "no_transform_source"
    assert "tf2_ros cannot be imported" in text and "laser_to_camera" in text


# Motion

AT_LASER = "0 0 0 0 0 0 1"


def odometry(linear=(0, 0, 0), angular=(0, 0, 0), stamp_ms=1000):
    msg = Odometry(child_frame_id="base")
    for vector, values in ((msg.twist.twist.linear, linear), (msg.twist.twist.angular, angular)):
        vector.x, vector.y, vector.z = map(float, values)
    return stamped(msg, stamp_ms * MS, "odom")


def test_each_ray_is_moved_to_the_time_of_the_image_by_the_robots_speed():
    """Driving at 2 m/s: what was 3 m ahead 0.1 s before the image is 2.8 m ahead in it."""
    bench = Bench(deskew=True, laser_to_base=AT_LASER)
    bench.scans.take_odometry(odometry(linear=(2, 0, 0)))
    bench.scans.take_scan(scan_message([3, 3, 3], -0.1, 0.1, stamp_ns=900 * MS, ray_s=0.05))
    depth = bench.ask(1_000 * MS).points[:, 2]
    ahead = 3 * np.cos([0.1, 0, 0.1])
    assert depth == pytest.approx(ahead - 2 * np.array([0.1, 0.05, 0.0]), abs=1e-6)
    assert not bench.statistics.frames_not_deskewed


def test_a_turn_is_about_the_base_and_not_about_the_laser():
    """The laser is 1 m ahead of the base, which turns left at 1 rad/s; the ray is 0.1 s old.

    What was 2 m ahead of the laser, 3 m of the base, is now to the right: the base sees it at
    (3 cos 0.1, -3 sin 0.1), the laser 1 m behind that.
    """
    bench = Bench(deskew=True, laser_to_base="1 0 0 0 0 0 1")
    bench.scans.take_odometry(odometry(angular=(0, 0, 1)))
    bench.scans.take_scan(scan_message([2], stamp_ns=900 * MS))
    x, _, z = bench.ask(1_000 * MS).points[0]
    assert (z, x) == pytest.approx((3 * np.cos(0.1) - 1, 3 * np.sin(0.1) + 0.01), abs=1e-6)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, "no_odometry"),
        (odometry(linear=(2, 0, 0), stamp_ms=500), "odometry_age"),
        (odometry(linear=(np.nan, 0, 0)), "odometry_invalid"),
    ],
)
def test_without_a_velocity_scans_are_used_as_they_are_and_that_is_told(message, reason):
    bench = Bench(deskew=True, laser_to_base=AT_LASER)
    if message is not None:
        bench.scans.take_odometry(message)
    bench.scans.take_scan(scan_message([3], stamp_ns=900 * MS))
    assert bench.ask().points[0, 2] == 3
    assert bench.statistics.frames_not_deskewed == {reason: 1}
    assert "scan used as it is" in bench.warnings[0]


def test_without_the_frame_of_the_velocity_scans_are_used_as_they_are():
    bench = Bench(deskew=True)
    bench.scans.take_odometry(odometry(linear=(2, 0, 0)))
    bench.scans.take_scan(scan_message([3], stamp_ns=900 * MS))
    assert bench.ask().points[0, 2] == 3
    assert bench.statistics.frames_not_deskewed == {"no_transform_source": 1}
    assert "laser_to_base" in bench.warnings[0]


# Agreement


def test_depth_is_held_against_the_scan_at_its_pixels_and_nowhere_else():
    bench = Bench()
    bench.scans.take_scan(scan_message([2, 1, 4], first=-0.5, step=0.5))
    seen = bench.ask()
    depth = np.full((48, 64), 70, np.float32)
    for (row, column), metres in zip(((29, 59), (34, 32), (26, 4)), (2.0, 1.1, 0.0)):
        depth[row, column] = metres  # 0: none there
    bench.scans.compare(seen, Prediction(depth))
    (agreement,) = bench.statistics._agreements
    right = 2 * np.cos(0.5)  # 1.755 m: the first ray's depth
    assert agreement.metres == pytest.approx((0.1 + (2 - right)) / 2, abs=1e-6)
    assert agreement.share == pytest.approx((0.1 + (2 - right) / right) / 2, abs=1e-6)
    assert agreement.scale == pytest.approx((1.1 + 2 / right) / 2, abs=1e-6)


def test_a_prediction_without_depth_at_the_scan_says_nothing():
    bench = Bench()
    bench.scans.take_scan(scan_message([2]))
    bench.scans.compare(bench.ask(), Prediction(np.zeros((48, 64), np.float32)))
    assert not bench.statistics._agreements
