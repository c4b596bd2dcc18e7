"""mde watch: the score of depth as it comes is the score of the same depth offline."""

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

sys.path.append(str(Path(__file__).parent / "nodes"))
from robot import write_network

from mde_ros.datasets import open_dataset
from mde_ros.datasets.bag_file import BagWriter
from mde_ros.datasets.bag_messages import (
    DEPTH_TOPIC,
    IMAGE,
    IMAGE_TOPIC,
    INFO_TOPIC,
    JAZZY,
    SAMPLE_TOPICS,
    sample_messages,
)
from mde_ros.evaluation.results import check_results, load_results
from mde_ros.evaluation.score import Scorer
from mde_ros.frame import Camera, Frame
from mde_ros.isolation import die_with_parent
from mde_ros.live.played import DIAGNOSTICS_TYPE, PlayedTopics
from mde_ros.live.watch import DEPTH_TYPE, Scoreboard
from mde_ros.nodes.process import dds_environment

CAMERA = Camera(64, 48, np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]))
TOPICS = PlayedTopics(IMAGE_TOPIC, INFO_TOPIC, IMAGE, "cam")
SECOND = 10**9
STAMPS = [SECOND + i * SECOND // 10 for i in range(8)]


def frames() -> list[Frame]:
    random = np.random.default_rng(5)
    return [Frame(random.integers(10, 101, (48, 64, 3), dtype=np.uint8), CAMERA) for _ in STAMPS]


def truth_m(i: int) -> np.ndarray:
    """A slope that comes nearer; the last frame was not measured."""
    if i == len(STAMPS) - 1:
        return np.zeros((48, 64), np.float32)
    return np.linspace(2, 4, 48, dtype=np.float32)[:, None] + np.zeros(64, np.float32) - i / 10


@pytest.fixture
def bag(tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for i, (stamp, frame) in enumerate(zip(STAMPS, frames())):
            for topic, t, cdr in sample_messages(frame, truth_m(i), stamp):
                writer.write(topic, SAMPLE_TOPICS[topic], t, cdr)
    return tmp_path / "a.mcap"


def depth_cdr(stamp: int, depth_m: np.ndarray) -> bytes:
    messages = {topic: cdr for topic, _, cdr in sample_messages(frames()[0], depth_m, stamp)}
    return messages[DEPTH_TOPIC]


def diagnostics_cdr(**values: object) -> bytes:
    types = JAZZY.types
    pairs = [types["diagnostic_msgs/msg/KeyValue"](k, str(v)) for k, v in values.items()]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](0, "n: frames", "", "", pairs)
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "")
    message = types[DIAGNOSTICS_TYPE](header, [status])
    return bytes(JAZZY.serialize_cdr(message, DIAGNOSTICS_TYPE))


def test_what_comes_is_scored_by_its_stamp_once_and_told_as_the_offline_scorer_does(bag):
    board = Scoreboard(open_dataset(bag), STAMPS, TOPICS)
    said = {"image": IMAGE_TOPIC, "model": "planted", "model_sha256": "abc"}
    board.take_diagnostics("", "", 0, diagnostics_cdr(frames_in=100, frames_out=90, **said))
    board.sent_ns = {stamp: stamp for stamp in STAMPS}  # a stamp is taken for the time of sending
    scorer = Scorer()
    for i in (0, 2, 3, 5, 7):  # 7 was not measured
        depth_m = truth_m(i) * np.float32(1.1) + np.float32(2 * (i == 7))
        received_ns = STAMPS[i] + (10 + i) * 1_000_000
        board.take_depth("", DEPTH_TYPE, received_ns, depth_cdr(STAMPS[i], depth_m))
        if i < 7:
            rounded = np.round(depth_m * 1000).astype(np.uint16) / np.float32(1000)
            scorer.add(str(i), rounded, np.round(truth_m(i), 3), STAMPS[i])
    board.take_depth("", DEPTH_TYPE, 0, depth_cdr(STAMPS[0], truth_m(0)))  # played again
    board.take_depth("", DEPTH_TYPE, 0, depth_cdr(12345, truth_m(0)))  # of something else
    counts = {"frames_in": 107, "frames_out": 95, "dropped.bad_step": 2}
    board.take_diagnostics("", "", 0, diagnostics_cdr(**counts, **said))

    results = board.results("walk")
    check_results(results)
    (model,) = results["models"]
    assert (model["name"], model["weights_sha256"]) == ("planted", "abc")
    expected = scorer.result()
    for key, value in expected["metrics"].items():
        assert model["metrics"][key] == pytest.approx(value, rel=1e-3), key
    assert model["metrics"]["abs_rel"] == pytest.approx(0.1, abs=1e-3)
    assert [image["index"] for image in model["per_image"]] == [0, 2, 3, 5]
    assert [image["latency_ms"] for image in model["per_image"]] == [10, 12, 13, 15]
    assert (results["frames_in"], results["frames_out"], board.strange) == (8, 5, 1)
    # The node had counted 100 before the first image; one of ours never reached it.
    assert results["dropped"] == {"bad_step": 2, "not received by the node": 1}
    assert not board.complete()
    assert board.line().startswith("5 of 8 frames; AbsRel 0.100; RMSE ")
    assert "2 dropped: bad_step" in board.line()


def test_the_running_node_is_scored_while_its_bag_is_played_and_ctrl_c_ends_it_well(bag, tmp_path):
    ramp = write_network(tmp_path / "ramp.onnx", per_red=0.1, metres=0.0, size=(64, 48))
    out = tmp_path / "results.json"
    watch = ["mde_ros.cli", "watch", str(bag), "--json", str(out)]
    node = ["mde_ros.nodes.depth_node", "--ros-args", "-p", "autostart:=true"]
    node += ["-p", f"model:={ramp}"]
    node += ["-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={INFO_TOPIC}"]
    player = [*TOPICS.player(bag, 1.0), "--start", "0.15"]  # so that it is never complete
    with domain_id() as domain:
        environment = {
            **os.environ,
            **dds_environment(),
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(tmp_path / "log"),
        }
        started = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
            for command in (node, player, watch)
        ]
        try:
            assert started[1].wait(60) == 0
            time.sleep(1)
            for _ in range(3):  # the second and third may not spoil the end
                started[2].send_signal(signal.SIGINT)
                time.sleep(0.1)
            said = started[2].communicate(timeout=20)[0]
            assert started[2].returncode == 0, said
        finally:
            for process in started:
                process.terminate()
                process.communicate(timeout=20)
    results = load_results(out)
    came = [image["index"] for image in results["models"][0]["per_image"]]
    assert came and results["frames_out"] >= len(came)
    scorer = Scorer()
    for i in came:
        predicted_m = frames()[i].image[..., 0] * np.float32(0.1)
        scorer.add("", predicted_m, np.round(truth_m(i), 3), STAMPS[i])
    expected = scorer.result()["metrics"]
    for key, value in results["models"][0]["metrics"].items():
        assert value == pytest.approx(expected[key], rel=1e-4), key
    assert results["models"][0]["name"] == "stub" and "AbsRel" in said
