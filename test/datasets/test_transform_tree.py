"""The tree of transforms against closed forms: chains, slerp, and where it must not answer."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from mde_ros.datasets.transform_tree import TransformError, TransformTree
from mde_ros.geometry import pose

SECOND = 1_000_000_000
random = np.random.default_rng(1)


def shift(x=0.0, y=0.0, z=0.0):
    return pose([x, y, z], [0, 0, 0, 1])


def yaw(angle, x=0.0, y=0.0):
    T = shift(x, y)
    T[:3, :3] = cv2.Rodrigues(np.array([0, 0, angle]))[0]
    return T


def any_pose():
    return pose(random.normal(size=3), random.normal(size=4))


def driving(rate_hz=10, seconds=3.0, speed=1.0):
    """odom → base moves along x, base → laser and base → camera are fixed."""
    tree = TransformTree()
    tree.add("base", "laser", shift(0.2, 0, 0.1))
    tree.add("base", "camera", shift(0, 0, 1.0))
    for i in range(round(rate_hz * seconds) + 1):
        stamp = i * SECOND // rate_hz
        tree.add("odom", "base", shift(speed * stamp / SECOND), stamp)
    return tree


def test_a_chain_is_the_product_of_its_links_in_either_direction():
    links = [any_pose() for _ in range(4)]
    tree = TransformTree()
    for i, T in enumerate(links):  # 0 → 1 → 2, and 0 → 3 → 4
        tree.add(("0", "1", "0", "3")[i], ("1", "2", "3", "4")[i], T)
    expected = np.linalg.inv(links[0] @ links[1]) @ links[2] @ links[3]
    assert tree.lookup("2", "4", 5) == pytest.approx(expected)
    assert tree.lookup("4", "2", 5) == pytest.approx(np.linalg.inv(expected))
    assert np.array_equal(tree.lookup("3", "3", 5), np.eye(4))


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_between_two_stamps_a_pose_turns_evenly_and_moves_straight(share):
    """Closed form: a turn of 0.8 rad about one axis and a way of 2 m, in 0.1 s each tenth of it."""
    axis = np.array([1, -2, 2]) / 3
    tree = TransformTree()
    for s in (0, 1):
        T = shift(2 * s)
        T[:3, :3] = cv2.Rodrigues(axis * 0.8 * s)[0]
        tree.add("odom", "base", T, s * SECOND // 10)
    got = tree.lookup("odom", "base", round(share * SECOND / 10))
    assert got[:3, 3] == pytest.approx([2 * share, 0, 0])
    assert got[:3, :3] == pytest.approx(cv2.Rodrigues(axis * 0.8 * share)[0], abs=1e-9)


def test_what_two_sensors_saw_at_two_times_meets_in_the_fixed_frame():
    """The robot drives 1 m/s; the scan is 0.25 s older than the image, so 0.25 m behind."""
    tree = driving()
    late, early = 2 * SECOND, 7 * SECOND // 4
    assert tree.fixed_frame("camera", "laser") == "odom"
    rigid = tree.lookup("camera", "laser", late)
    assert rigid[:3, 3] == pytest.approx([0.2, 0, -0.9])
    moved = tree.lookup("camera", "laser", late, early, fixed="odom")
    assert moved[:3, 3] == pytest.approx([0.2 - 0.25, 0, -0.9])
    assert tree.lookup("camera", "laser", late, early) == pytest.approx(rigid)


def test_without_a_fixed_frame_each_end_of_a_turning_head_has_its_own_time():
    """base → head → camera turns at 1 rad/s; the laser on the base saw its points earlier."""
    tree = TransformTree()
    tree.add("base", "laser", shift(0.1))
    for i in range(11):
        tree.add("base", "head", yaw(i / 10), i * SECOND // 10)
    tree.add("head", "camera", shift(0, 0.3))
    assert tree.fixed_frame("camera", "laser") is None
    got = tree.lookup("camera", "laser", SECOND // 2, SECOND // 5)
    assert got == pytest.approx(np.linalg.inv(yaw(0.5) @ shift(0, 0.3)) @ shift(0.1))


def test_nothing_is_told_beyond_the_limit_of_extrapolation():
    tree = driving(seconds=1.0)
    for stamp, side in ((1_040_000_000, "after the last"), (-40_000_000, "before the first")):
        with pytest.raises(TransformError, match=f"odom → base is not known .* 0.040 s {side}"):
            tree.lookup("odom", "base", stamp)
        beyond = tree.lookup("odom", "base", stamp, slack_s=0.05)
        assert beyond[0, 3] == pytest.approx(stamp / SECOND)  # it goes on at 1 m/s
    with pytest.raises(TransformError) as error:
        tree.lookup("camera", "laser", SECOND, 2 * SECOND, "odom", slack_s=0.5)
    assert error.value.reason == "no transform at that time"


def test_a_tree_that_stops_is_silent_in_the_gap_unless_nothing_moved_meanwhile():
    tree = driving(seconds=1.0)
    tree.add("odom", "base", shift(5.0), 4 * SECOND)
    with pytest.raises(TransformError, match=r"odom → base stops for 3.000 s at 1.000 s"):
        tree.lookup("odom", "base", 2 * SECOND)
    assert tree.lookup("odom", "base", 4 * SECOND)[0, 3] == 5  # a stamp of its own is known
    with pytest.raises(TransformError, match="stops"):  # but not the way there
        tree.lookup("camera", "laser", 4 * SECOND, SECOND // 2, "odom")
    tree.add("odom", "base", shift(5.0), 7 * SECOND)
    assert tree.lookup("odom", "base", 6 * SECOND)[0, 3] == 5


@pytest.mark.parametrize("jumped", [shift(8.0), yaw(3.1, x=1.1)], ids=["metres", "turn"])
def test_a_jump_is_never_interpolated_nor_passed_over(jumped):
    tree = driving(seconds=1.0)
    tree.add("odom", "base", jumped, 1_050_000_000)
    tree.add("odom", "base", jumped, 1_150_000_000)
    for stamp, other in ((1_020_000_000, None), (1_100_000_000, 900_000_000)):
        with pytest.raises(TransformError, match=r"odom → base jumps by .* at 1.000 s") as error:
            tree.lookup("camera", "laser", stamp, other, "odom")
        assert error.value.reason == "a transform jumps"
    before = tree.lookup("camera", "laser", 900_000_000, 850_000_000, "odom")
    assert before[0, 3] == pytest.approx(0.2 - 0.05)
    after = tree.lookup("camera", "laser", 1_100_000_000, 1_060_000_000, "odom")
    assert after[:3, 3] == pytest.approx([0.2, 0, -0.9])


def test_a_clock_that_is_set_back_begins_anew():
    tree = driving(seconds=3.0)
    for i in range(5):
        tree.add("odom", "base", shift(100 + i / 10), i * SECOND // 10 - 100 * SECOND)
    assert tree.lookup("odom", "base", -99_750_000_000)[0, 3] == pytest.approx(100.25)
    with pytest.raises(TransformError, match="after the last"):
        tree.lookup("odom", "base", 2 * SECOND)


def test_late_and_repeated_transforms_take_their_place_in_time():
    tree = TransformTree()
    for stamp, x in ((3, 3.0), (1, 1.0), (2, 9.0), (2, 2.0), (0, 0.0)):
        tree.add("odom", "base", shift(x / 10), stamp * SECOND // 10)
    for stamp in (50_000_000, 150_000_000, 250_000_000):
        assert tree.lookup("odom", "base", stamp)[0, 3] == pytest.approx(stamp / SECOND)


def test_of_several_parents_the_shortest_way_known_at_the_time_counts():
    """A tool hangs on the base until 1 s and on the arm from 2 s on."""
    tree = TransformTree()
    tree.add("base", "arm", shift(0, 1))
    for i in range(11):
        tree.add("base", "tool", shift(7), i * SECOND // 10)
    for i in range(20, 31):
        tree.add("arm", "tool", shift(0.5), i * SECOND // 10)
    assert tree.lookup("base", "tool", SECOND)[:3, 3] == pytest.approx([7, 0, 0])
    assert tree.lookup("base", "tool", 2 * SECOND)[:3, 3] == pytest.approx([0.5, 1, 0])
    with pytest.raises(TransformError, match=r"is not known at 1\.500 s"):
        tree.lookup("base", "tool", 3 * SECOND // 2)


def test_leading_slashes_of_early_ros_name_the_same_frames():
    tree = TransformTree()
    tree.add("/odom", "/base", shift(1))
    tree.add("base", "camera", shift(0, 1))
    assert tree.lookup("/camera", "odom", 0)[:3, 3] == pytest.approx([-1, -1, 0])
    assert tree.fixed_frame("/camera", "/base") == "odom"


def test_the_fixed_frame_is_the_smoothest_that_both_hang_on():
    tree = driving()
    tree.add("map", "odom", shift(3))
    assert tree.fixed_frame("camera", "laser") == "odom"
    tree.add("world", "tripod", shift(3))
    assert tree.fixed_frame("camera", "tripod") is None
    other = TransformTree()
    other.add("robot1/map", "robot1/base", shift(3))
    assert other.fixed_frame("robot1/base") == "robot1/map"


def test_frames_that_are_not_connected_are_named():
    tree = driving()
    tree.add("stand", "other_camera", shift())
    with pytest.raises(TransformError, match="no transforms connect 'camera' and 'other_camera'"):
        tree.lookup("camera", "other_camera", SECOND)
    with pytest.raises(TransformError, match="no frame 'scanner'; there are base, camera") as error:
        tree.lookup("camera", "scanner", SECOND)
    assert error.value.reason == "frames not connected"
    assert tree.connects("camera", "laser", "odom") and not tree.connects("camera", "stand")
    with pytest.raises(TransformError, match="there are none"):
        TransformTree().lookup("a", "b", 0)


@pytest.mark.parametrize(
    ("parent", "child", "T"),
    [("a", "", np.eye(4)), ("a", "/a", np.eye(4)), ("a", "b", np.full((4, 4), np.nan))],
)
def test_a_transform_that_is_none_is_refused(parent, child, T):
    with pytest.raises(ValueError, match="transform: expected"):
        TransformTree().add(parent, child, T, 0)


def test_memory_does_not_grow_with_time():
    def kept(seconds):
        edge = driving(rate_hz=100, seconds=seconds)._edges["odom"]["base"][0]
        return sum(sys.getsizeof(T) for T in edge.poses)

    assert kept(40) <= 1.05 * kept(10.5)
