"""The player: a bag's messages as they are, at their times, and a clock that follows the bag."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from domain_coordinator import domain_id
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robot import Robot
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability
from rosbags.interfaces import QosTime as Seconds
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from mde_ros.datasets.bag_file import Bag, BagError, BagWriter
from mde_ros.datasets.bag_messages import (
    IMAGE_TOPIC,
    INFO_TOPIC,
    JAZZY,
    SAMPLE_TOPICS,
    sample_messages,
)
from mde_ros.frame import Camera, Frame
from mde_ros.nodes.player import Player, PlayError, main, read_ahead, valid_name

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
KINDS = {IMAGE_TOPIC: Image, INFO_TOPIC: CameraInfo}
STRING = "std_msgs/msg/String"


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def bag(tmp_path):
    """20 frames at 20 Hz: image, camera_info and depth, 0.95 s from first to last."""
    random = np.random.default_rng(1)
    camera = Camera(16, 12, np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]))
    path = tmp_path / "a.mcap"
    with BagWriter(path) as writer:
        for i in range(20):
            image = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            depth = random.uniform(1, 5, (12, 16))
            for topic, t, cdr in sample_messages(
                Frame(image, camera), depth, START + i * SECOND // 20
            ):
                writer.write(topic, SAMPLE_TOPICS[topic], t, cdr)
    return path


def stored(path: Path, topic: str) -> list[bytes]:
    with Bag(path) as bag:
        return [bytes(raw) for _, _, raw in bag.messages([topic])]


def keep(robot: Robot, kind, topic: str, raw: bool = True, **qos) -> list:
    heard: list = []
    profile = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE, **qos)
    robot.node.create_subscription(kind, topic, heard.append, profile, raw=raw)
    return heard


def nanoseconds(clock: Clock) -> int:
    return clock.clock.sec * SECOND + clock.clock.nanosec


def play(robot: Robot, path: Path, heard: list, count: int, **options) -> Player:
    """Play once, after the listeners are matched, and wait for `count` messages in `heard`."""
    with Bag(path) as source:
        player = Player(source, robot.node, **options)
        player.wait_for_subscribers(limit_s=10)
        player.play_once()
        robot.until(lambda: len(heard) >= count)
    return player


def test_messages_arrive_with_the_bags_bytes_in_the_bags_order(robot, bag):
    images, infos = keep(robot, Image, IMAGE_TOPIC), keep(robot, CameraInfo, INFO_TOPIC)
    player = play(robot, bag, images, 20, rate=10)
    robot.until(lambda: len(infos) >= 20)
    assert images == stored(bag, IMAGE_TOPIC)
    assert infos == stored(bag, INFO_TOPIC)
    assert player.published == 60


def test_the_clock_is_monotone_and_shows_the_time_of_every_message(robot, bag):
    clocks = keep(robot, Clock, "/clock", raw=False)
    images = keep(robot, Image, IMAGE_TOPIC)
    play(robot, bag, images, 20)
    times = [START + i * SECOND // 20 for i in range(20)]
    robot.until(lambda: clocks and nanoseconds(clocks[-1]) >= times[-1])
    shown = [nanoseconds(c) for c in clocks]
    assert shown == sorted(set(shown))
    assert set(times) <= set(shown)
    assert shown[0] == times[0] and shown[-1] == times[-1]
    assert max(np.diff(shown)) <= 50_000_000  # and goes on between them


@pytest.mark.parametrize("rate", [0.5, 4.0])
def test_rate_scales_the_time_between_messages(robot, bag, rate):
    heard: list[float] = []
    robot.node.create_subscription(
        Image, IMAGE_TOPIC, lambda _: heard.append(time.monotonic()), 1000
    )
    begun = time.monotonic()
    with Bag(bag) as source:
        player = Player(source, robot.node, rate=rate)
        player.wait_for_subscribers(limit_s=10)
        begun = time.monotonic()
        player.play_once()
    took = time.monotonic() - begun
    assert took >= 0.95 / rate  # never early
    assert player.latest_s < 0.2 and took < 0.95 / rate + 0.3


def test_start_skips_to_the_first_message_at_or_after_the_offset(robot, bag):
    images = keep(robot, Image, IMAGE_TOPIC)
    play(robot, bag, images, 10, start_s=0.5, rate=10)
    assert images == stored(bag, IMAGE_TOPIC)[10:]


def test_topics_and_remap_choose_what_is_published_and_where(robot, bag):
    moved, infos = keep(robot, Image, "/front/image"), keep(robot, CameraInfo, INFO_TOPIC)
    original = keep(robot, Image, IMAGE_TOPIC)
    options = {"topics": [IMAGE_TOPIC], "remap": {IMAGE_TOPIC: "/front/image"}}
    player = play(robot, bag, moved, 20, rate=20, **options)
    assert moved == stored(bag, IMAGE_TOPIC)
    assert not infos and not original
    assert player.published == 20 and list(player.publishers) == [IMAGE_TOPIC]


def test_playing_again_repeats_the_bag_and_turns_the_clock_back(robot, bag):
    images, clocks = keep(robot, Image, IMAGE_TOPIC), keep(robot, Clock, "/clock", raw=False)
    with Bag(bag) as source:
        player = Player(source, robot.node, rate=10)
        player.wait_for_subscribers([IMAGE_TOPIC], 10)
        player.play_once()
        player.play_once()
        robot.until(lambda: len(images) >= 40)
    assert images == stored(bag, IMAGE_TOPIC) * 2
    end = START + 19 * SECOND // 20
    robot.until(lambda: [nanoseconds(c) for c in clocks].count(end) == 2)
    shown = [nanoseconds(c) for c in clocks]
    assert (np.diff(shown) < 0).sum() == 1
    assert shown.count(START) == 2


def offered(reliability: str, durability: str = "VOLATILE") -> Qos:
    forever = Seconds(2147483647, 4294967295)
    return Qos(QosHistory.KEEP_LAST, 1, QosReliability[reliability], QosDurability[durability],
               forever, forever, QosLiveliness.AUTOMATIC, forever, False)  # fmt: skip


def test_topics_are_offered_as_they_were_recorded(robot, tmp_path):
    """What DDS itself tells of the publishers; publishers that differed are heard by all."""
    recorded = {
        "/camera": [offered("BEST_EFFORT")],
        "/command": [offered("RELIABLE")],
        "/both": [offered("BEST_EFFORT"), offered("RELIABLE")],
        "/map": [offered("RELIABLE", "TRANSIENT_LOCAL")],
        "/tf_static": [],  # of ROS 1, or of a tool that does not write it down
        "/unknown": [],
    }
    hello = bytes(JAZZY.serialize_cdr(JAZZY.types[STRING]("hello"), STRING))
    with Writer(tmp_path / "b", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, profiles in recorded.items():
            connection = writer.add_connection(
                topic, STRING, typestore=JAZZY, offered_qos_profiles=profiles
            )
            writer.write(connection, START, hello)
    with Bag(tmp_path / "b") as source:
        player = Player(source, robot.node)
        told = {t: robot.node.get_publishers_info_by_topic(t)[0].qos_profile for t in recorded}
    assert {t for t, q in told.items() if q.reliability == ReliabilityPolicy.RELIABLE} == {
        "/command", "/both", "/map", "/tf_static", "/unknown"
    }  # fmt: skip
    assert {t for t, q in told.items() if q.durability == DurabilityPolicy.TRANSIENT_LOCAL} == {
        "/map", "/tf_static"
    }  # fmt: skip
    assert player.publishers.keys() == recorded.keys()


def test_latched_messages_reach_late_joiners_even_from_before_the_start(robot, tmp_path):
    latched = offered("RELIABLE", "TRANSIENT_LOCAL")
    text = JAZZY.types[STRING]
    with Writer(tmp_path / "b", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        a = writer.add_connection("/map", STRING, typestore=JAZZY, offered_qos_profiles=[latched])
        b = writer.add_connection("/talk", STRING, typestore=JAZZY)
        for i in range(3):
            cdr = bytes(JAZZY.serialize_cdr(text(f"map {i}"), STRING))
            writer.write(a, START + i, cdr)
        for i in range(5):
            writer.write(b, START + i * SECOND // 10, bytes(JAZZY.serialize_cdr(text("x"), STRING)))
    talk = keep(robot, String, "/talk")
    player = play(robot, tmp_path / "b", talk, 3, start_s=0.15)
    late = keep(robot, String, "/map", raw=False, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.until(lambda: len(late) >= 3)
    assert [m.data for m in late] == ["map 0", "map 1", "map 2"]
    assert len(talk) == 3 and player.published == 6


def test_a_ros1_bag_is_converted_field_by_field(robot, tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    T = store.types
    header = T["std_msgs/msg/Header"](7, T["builtin_interfaces/msg/Time"](12, 34), "cam")
    data = np.arange(36, dtype=np.uint8)
    image = T["sensor_msgs/msg/Image"](header, 3, 4, "rgb8", 0, 12, data)
    K, R, P = np.arange(9.0), np.eye(3).ravel(), np.arange(12.0)
    roi = T["sensor_msgs/msg/RegionOfInterest"](1, 2, 3, 4, True)
    info = T["sensor_msgs/msg/CameraInfo"](
        header, 3, 4, "plumb_bob", np.arange(5.0), K, R, P, 0, 0, roi
    )
    with Writer1(tmp_path / "a.bag") as writer:
        for topic, message in (("/image", image), ("/info", info)):
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, START, store.serialize_ros1(message, kind))
    images, infos = keep(robot, Image, "/image", False), keep(robot, CameraInfo, "/info", False)
    play(robot, tmp_path / "a.bag", images, 1)
    robot.until(lambda: infos)
    for got in (images[0], infos[0]):
        assert (got.header.stamp.sec, got.header.stamp.nanosec) == (12, 34)
        assert got.header.frame_id == "cam" and (got.height, got.width) == (3, 4)
    assert (images[0].encoding, images[0].step) == ("rgb8", 12)
    assert bytes(images[0].data) == data.tobytes()
    np.testing.assert_array_equal(infos[0].k, K)
    np.testing.assert_array_equal(infos[0].p, P)
    assert infos[0].roi.height == 3 and infos[0].roi.do_rectify


def test_a_type_that_is_not_installed_is_skipped_unless_it_was_asked_for(robot, tmp_path, bag):
    tf = JAZZY.types["tf2_msgs/msg/TFMessage"]([])
    kind, text = "tf2_msgs/msg/TFMessage", JAZZY.types[STRING]("x")
    with BagWriter(tmp_path / "b.mcap") as writer:
        writer.write("/tf", kind, START, bytes(JAZZY.serialize_cdr(tf, kind)))
        writer.write("/talk", STRING, START, bytes(JAZZY.serialize_cdr(text, STRING)))
    if "tf2_msgs" in sys.modules or Path("/opt/ros").is_dir():
        pytest.skip("tf2_msgs is installed here")
    with Bag(tmp_path / "b.mcap") as source:
        assert Player(source, robot.node).skipped == ["/tf (tf2_msgs/msg/TFMessage)"]
        with pytest.raises(PlayError, match="tf2_msgs/msg/TFMessage"):
            Player(source, robot.node, topics=["/tf"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rate": 0.0}, PlayError),
        ({"start_s": 3.0}, PlayError),
        ({"start_s": -1.0}, PlayError),
        ({"topics": ["/nothing"]}, BagError),
        ({"remap": {"/nothing": "/something"}}, BagError),
        ({"remap": {IMAGE_TOPIC: "/some thing"}}, PlayError),
    ],
)
def test_what_makes_no_sense_is_refused(robot, bag, options, error):
    with Bag(bag) as source, pytest.raises(error):
        Player(source, robot.node, **options)


def test_waiting_for_subscribers_ends_with_an_error_that_names_the_topic(robot, bag):
    keep(robot, Image, IMAGE_TOPIC)
    with Bag(bag) as source:
        player = Player(source, robot.node)
        player.wait_for_subscribers([IMAGE_TOPIC], 10)
        with pytest.raises(PlayError, match=INFO_TOPIC):
            player.wait_for_subscribers([IMAGE_TOPIC, INFO_TOPIC], 0.1)
        with pytest.raises(PlayError, match=IMAGE_TOPIC):
            player.wait_for_subscribers([IMAGE_TOPIC], 0.1, count=2)


def test_names_that_ros2_forbids_become_valid_and_others_stay():
    assert valid_name("/device_0/option/Enable Auto Exposure/tf/0") == (
        "/device_0/option/Enable_Auto_Exposure/tf/_0"
    )
    assert valid_name(IMAGE_TOPIC) == IMAGE_TOPIC


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--topics", "/wrong"], [*SAMPLE_TOPICS, "/wrong"]),
        (["--remap", "nonsense"], ["FROM:=TO", "nonsense"]),
        (["--start", "9"], ["0.950 s"]),
    ],
)
def test_a_user_error_is_one_sentence_and_exit_code_2(bag, capsys, flags, expected):
    assert main([str(bag), *flags]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and all(e in said for e in expected)


def test_a_bag_that_breaks_off_is_told_in_a_sentence_and_played_as_far_as_it_goes(bag, capsys):
    whole = bag.read_bytes()
    for kept, code, reason in ((len(whole) - 100, 0, "breaks off"), (60, 2, "cannot be read")):
        bag.write_bytes(whole[:kept])
        assert main([str(bag), "--rate", "20"]) == code
        said = capsys.readouterr().err
        assert len(said.strip().splitlines()) == 1 and str(bag) in said and reason in said


def test_what_comes_before_the_break_is_played_whole(robot, bag):
    images = stored(bag, IMAGE_TOPIC)
    bag.write_bytes(bag.read_bytes()[:-100])
    heard = keep(robot, Image, IMAGE_TOPIC)
    play(robot, bag, heard, len(images), rate=20)
    assert heard == images


def test_reading_ahead_keeps_order_and_hands_the_error_over_where_it_happened():
    def items():
        yield from range(50)
        raise BagError("cut off")

    got = []
    with pytest.raises(BagError):
        for item in read_ahead(items(), depth=4):
            got.append(item)
    assert got == list(range(50))


def test_the_process_loops_and_ends_with_code_0_at_ctrl_c(bag, tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with domain_id() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        robot = Robot()
        images = keep(robot, Image, IMAGE_TOPIC)
        command = [sys.executable, "-m", "mde_ros.nodes.player", str(bag), "--loop", "--rate", "10"]
        process = subprocess.Popen(
            [*command, "--wait-for", IMAGE_TOPIC], env=os.environ, stderr=subprocess.PIPE, text=True
        )
        try:
            robot.until(lambda: len(images) > 45)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
            process.wait()
            robot.close()
    once = stored(bag, IMAGE_TOPIC)
    assert images[:40] == once * 2  # not even the first is lost
