"""Where the laser is: from a parameter or from TF, of which a stand-in knows what a test plants.

tf2_ros does not come with pip; the stand-in has the classes and signatures of its Python sources.
"""

import sys
from types import ModuleType

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from robot import image_message, info_message, scan_message, stamped

from mde_ros.config import CompletionSettings, ConfigError
from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.laser_pose import LaserPose

BELOW = "0 0.2 0 0.5 -0.5 0.5 0.5"
SECOND = 1_000_000_000


class TransformException(Exception): ...


class LookupException(TransformException): ...


class ConnectivityException(TransformException): ...


class ExtrapolationException(TransformException): ...


class InvalidArgumentException(TransformException): ...


class Buffer:
    """One transform, that of the laser in the camera's frame, known from one time to another."""

    def __init__(self, cache_time=None, node=None):
        self.known_ns, self.asked, self.cleared = (0, 0), [], 0
        self.transform = TransformStamped().transform
        self.transform.rotation.w = 1.0

    def set_transform(self, msg, authority):
        self.transform = msg.transform
        self.known_ns = (0, Time.from_msg(msg.header.stamp).nanoseconds)

    def lookup_transform(self, target_frame, source_frame, time, timeout=None):
        assert isinstance(time, Time) and timeout is None
        self.asked.append((target_frame, source_frame, time.nanoseconds))
        if (target_frame, source_frame) != ("cam", "laser"):
            raise LookupException(f'"{target_frame}" passed to lookupTransform does not exist.')
        if not self.known_ns[0] <= time.nanoseconds <= self.known_ns[1]:
            raise ExtrapolationException("Lookup would require extrapolation into the future.")
        return TransformStamped(transform=self.transform)

    def clear(self):
        self.cleared += 1


class TransformListener:
    """Its /tf carries single transforms: pip has no tf2_msgs either."""

    made: list = []

    def __init__(self, buffer, node, *, spin_thread=False, qos=None, static_qos=None):
        assert not spin_thread, "the node is in an executor already"
        self.buffer, self.node = buffer, node
        self.tf_sub = node.create_subscription(TransformStamped, "/tf", self.callback, 100)
        TransformListener.made.append(self)

    def callback(self, data):
        self.buffer.set_transform(data, "default_authority")

    def unregister(self):
        self.node.destroy_subscription(self.tf_sub)


@pytest.fixture
def tf2(monkeypatch):
    """The listeners that nodes made, in the presence of tf2_ros."""
    module = ModuleType("tf2_ros")
    module.__dict__.update(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=TransformException
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    monkeypatch.delitem(sys.modules, "mde_ros.nodes.tf_tree", raising=False)
    monkeypatch.setattr(TransformListener, "made", [])
    yield TransformListener.made
    sys.modules.pop("mde_ros.nodes.tf_tree", None)


def pose(tf=None, **settings) -> LaserPose:
    return LaserPose(CompletionSettings(**settings), tf)


# The parameter


def test_the_parameter_is_translation_and_quaternion():
    """Turned a quarter to the left about z and 1, 2, 3 m away."""
    T = pose(laser_to_camera="1 2 3 0 0 0.70710678 0.70710678").in_camera("a", "b", 0)
    assert pytest.approx(np.array(T @ [1, 0, 0, 1])) == [1, 3, 3, 1]
    commas = pose(laser_to_camera="1, 2, 3, 0, 0, 0.70710678, 0.70710678")
    assert np.array_equal(commas.in_camera("a", "b", 0), T)


@pytest.mark.parametrize("name", ["laser_to_camera", "laser_to_base"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3", "expected seven numbers, x y z qx qy qz qw, got '1 2 3'"),
        ("0 0 0 0 0 0 one", "seven numbers"),
        ("0 0 nan 0 0 0 1", "seven numbers"),
        ("0 0 0 0 0 0 0", "quaternion of length 1, got 0.000"),
        ("0 0 0 1 0 0 1", "quaternion of length 1, got 1.414"),
    ],
)
def test_a_parameter_that_is_no_pose_is_refused(name, text, words):
    with pytest.raises(ConfigError, match=words):
        CompletionSettings(**{name: text})


def test_no_pose_is_ever_invented():
    for lookup in (pose().in_camera, pose().in_base):
        with pytest.raises(Rejected) as error:
            lookup("cam", "laser", 0)
        assert error.value.reason == "no_transform_source"


# TF


@pytest.fixture
def tree(tf2, bench):
    from mde_ros.nodes.tf_tree import TfTree

    before = len(list(bench.node.subscriptions))
    tree = TfTree(bench.node)
    yield tree, tf2[0].buffer
    tree.close()
    assert len(list(bench.node.subscriptions)) == before


def test_tf_is_asked_for_the_time_of_the_image_and_does_not_wait(tree):
    tree, buffer = tree
    buffer.known_ns = (SECOND, 2 * SECOND)
    move, turn = buffer.transform.translation, buffer.transform.rotation
    move.x, move.y, move.z = 1.0, 2.0, 3.0
    turn.z = turn.w = 0.5**0.5
    laser = pose(tree)
    assert laser.in_camera("cam", "laser", 2 * SECOND) @ [1, 0, 0, 1] == pytest.approx([1, 3, 3, 1])
    assert buffer.asked == [("cam", "laser", 2 * SECOND)]


def test_all_that_has_come_on_tf_counts_though_no_executor_has_taken_it_yet(tree, bench):
    """As while images are processed without a pause, and the executor takes one of each a round."""
    tree, _ = tree
    tf = bench.publisher(TransformStamped, "/tf")
    bench.until(tf.get_subscription_count)
    for i in range(1, 6):
        msg = stamped(TransformStamped(), i * SECOND, "cam")
        msg.transform.rotation.w, msg.transform.translation.x = 1.0, float(i)
        tf.publish(msg)
    assert tree.lookup("cam", "laser", 5 * SECOND)[0, 3] == 5


def test_a_parameter_goes_before_tf(tree):
    tree, buffer = tree
    assert pose(tree, laser_to_camera=BELOW).in_camera("cam", "laser", 0)[1, 3] == 0.2
    assert not buffer.asked


@pytest.mark.parametrize(
    ("frames", "stamp_ns", "words"),
    [
        (("", "laser"), SECOND, "does not exist"),
        (("cam", "nowhere"), SECOND, "'nowhere' to 'cam'"),
        (("cam", "laser"), 3 * SECOND, "extrapolation into the future"),  # it has stopped
    ],
)
def test_what_tf_does_not_know_is_rejected_in_its_words(tree, frames, stamp_ns, words):
    tree, buffer = tree
    buffer.known_ns = (SECOND, 2 * SECOND)
    with pytest.raises(Rejected) as error:
        tree.lookup(*frames, stamp_ns)
    assert error.value.reason == "no_transform" and words in str(error.value)


@pytest.mark.parametrize(("x", "w"), [(np.nan, 1.0), (0.0, np.nan), (0.0, 0.0)])
def test_a_transform_that_is_none_is_rejected(tree, x, w):
    tree, buffer = tree
    buffer.known_ns = (SECOND, SECOND)
    buffer.transform.translation.x, buffer.transform.rotation.w = x, w
    with pytest.raises(Rejected) as error:
        tree.lookup("cam", "laser", SECOND)
    assert error.value.reason == "no_transform"


# The node


def test_the_node_follows_a_laser_that_moves_in_tf_and_drops_what_tf_does_not_know(
    completion_bench, echo, tf2
):
    bench = completion_bench
    node = bench.start(echo, "depth/image_rect")
    (listener,) = tf2
    buffer = listener.buffer
    buffer.known_ns = (0, 2 * SECOND)
    turn = buffer.transform.rotation
    turn.x, turn.y, turn.z, turn.w = 0.5, -0.5, 0.5, 0.5
    rgb = np.zeros((48, 64, 3), np.uint8)
    for stamp_ns, ahead in ((SECOND, 0.0), (2 * SECOND, 1.5)):
        buffer.transform.translation.z = ahead
        bench.sweep(scan_message([3], stamp_ns=stamp_ns))
        image = image_message(rgb, stamp_ns)
        msg = bench.answer("depth/image_rect", image, info_message(64, 48, 50.0))
        depth = np.frombuffer(msg.data, np.float32).reshape(48, 64)
        assert depth[depth != 9].tolist() == [3 + ahead]
    assert buffer.asked[-1] == ("cam", "laser", 2 * SECOND)
    bench.sweep(scan_message([3], stamp_ns=3 * SECOND))
    bench.show(image_message(rgb, 3 * SECOND))
    assert node.statistics.dropped == {"no_transform": 1}
    bench.sweep(scan_message([3], stamp_ns=SECOND))
    assert buffer.cleared == 1, "time jumped back: TF would refuse older transforms"
    assert "/tf" in [s.topic_name for s in node.subscriptions]
    node.trigger_deactivate()
    assert "/tf" not in [s.topic_name for s in node.subscriptions]


def test_the_node_listens_to_tf_only_if_a_parameter_does_not_say_it(completion_bench, echo, tf2):
    node = completion_bench.start(echo, laser_to_camera=BELOW)
    assert tf2 == []
    assert node._pose.source == "parameter laser_to_camera"
