"""mde evaluate --live: what the real node says over DDS is what the pipeline says offline."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "nodes"))
from robot import write_network

from mde_ros.cli import main
from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.bag_file import BagWriter
from mde_ros.datasets.bag_messages import SAMPLE_TOPICS, sample_messages
from mde_ros.evaluation.evaluate import run_evaluate
from mde_ros.evaluation.results import load_results
from mde_ros.frame import Camera, Frame
from mde_ros.live.evaluation import difference, live_evaluation, measure_live
from mde_ros.live.played import LiveError, counts_of, dropped, node_says, stamps_of, topics_of
from mde_ros.live.replay import DEPTH, RECORDED, Replay
from mde_ros.pipeline import DepthPipeline

STILLS = resources.files("mde_ros") / "samples" / "stills.mcap"
CAMERA = Camera(64, 48, np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]))
SECOND = 10**9


@pytest.fixture
def bag(tmp_path):
    """Ten frames at 10 Hz, red 10 to 100, depth 2 m."""
    random = np.random.default_rng(5)
    with BagWriter(tmp_path / "a.mcap") as writer:
        for i in range(10):
            frame = Frame(random.integers(10, 101, (48, 64, 3), dtype=np.uint8), CAMERA)
            truth_m = np.full((48, 64), 2, np.float32)
            for topic, t, cdr in sample_messages(frame, truth_m, SECOND + i * SECOND // 10):
                writer.write(topic, SAMPLE_TOPICS[topic], t, cdr)
    return tmp_path / "a.mcap"


@pytest.fixture
def ramp(tmp_path):
    """A network whose depth is the red value in decimetres, pixel by pixel."""
    return write_network(tmp_path / "ramp.onnx", per_red=0.1, metres=0.0, size=(64, 48))


def test_live_depth_of_the_sample_bag_is_that_of_the_pipeline_bit_for_bit(tmp_path, capsys):
    out = tmp_path / "results.json"
    command = ["evaluate", str(STILLS), "--live", "--rate", "2", "--json", str(out)]
    assert main(command) == 0
    results = load_results(out)
    live = results["live"]
    assert live["max_difference_m"] == 0 and live["max_relative_difference"] == 0
    assert live["identical"] == live["frames_out"] >= 1
    assert live["frames_in"] == 45 == live["frames_out"] + sum(live["dropped"].values())
    assert 0 < live["latency_ms"]["p50"] <= live["latency_ms"]["p95"] <= live["latency_ms"]["p99"]
    assert live["latency_ms"]["frames"] == live["frames_out"]
    assert live["rate"] == 2 and 0 < live["fps"] < 40  # 10 Hz, twice as fast, less what is lost
    assert results["models"][0]["live"] == live
    said = " ".join(capsys.readouterr().out.split())
    assert "live: p95, ms" in said and "as offline bit for bit, at most 0 m off" in said


def test_every_model_goes_through_a_node_of_its_own_with_the_settings_of_its_pipeline(
    bag, ramp, tmp_path
):
    wall = write_network(tmp_path / "wall.onnx", metres=3.0)
    out = tmp_path / "results.json"
    settings = {"max_depth": 6.0, "threads": 1}  # cuts the ramp, which goes to 10 m
    live = live_evaluation(bag, progress=False)
    names = [str(ramp), str(wall)]
    assert run_evaluate(str(bag), names, json_path=str(out), pipeline=settings, live=live) == 0
    first, second = (model["live"] for model in load_results(out)["models"])
    for model in (first, second):
        assert model["identical"] == model["frames_out"] >= 1
        assert model["frames_out"] + sum(model["dropped"].values()) == 10
    assert load_results(out)["live"] == first


def test_a_difference_between_live_and_offline_is_found(bag, ramp, monkeypatch):
    """What the node is said to have published is a planted quarter of a metre more."""
    dataset, pipeline = open_dataset(bag), DepthPipeline(PipelineSettings(model=str(ramp)))

    def planted(source, dataset, out: Path, *args, **kwargs) -> Replay:
        logged = {}
        with BagWriter(out / "output.mcap") as writer:
            for sample in list(dataset)[:8]:
                stamp = sample.frame.stamp_ns
                logged[stamp] = stamp
                depth_m = pipeline(sample.frame).depth + np.float32(0.25)
                *_, (_, _, cdr) = sample_messages(sample.frame, depth_m, stamp)
                writer.write(DEPTH, RECORDED[DEPTH], stamp, cdr)
        return Replay(out / "output.mcap", dataset.stamps_ns(), logged, {}, {"frames_in": "8"})

    monkeypatch.setattr("mde_ros.live.evaluation.replay", planted)
    live = measure_live(bag, dataset, pipeline, progress=False)
    assert live["max_difference_m"] == pytest.approx(0.25, abs=1e-3)  # recorded in millimetres
    assert live["max_relative_difference"] == pytest.approx(0.25 / 1.25, abs=1e-3)  # at red 10
    assert (live["identical"], live["frames_in"], live["frames_out"]) == (0, 10, 8)
    assert live["dropped"] == {"not received by the node": 2}


def test_largest_difference_in_closed_form():
    a = np.array([[1.0, 2.0], [0.0, 10.0]], np.float32)
    assert difference(a, a) == (0, 0)
    assert difference(a, a + np.float32(0.5)) == pytest.approx((0.5, 1.0))  # 0 is no depth
    b = a.copy()
    b[1, 1] = 8
    assert difference(a, b) == pytest.approx((2.0, 0.2))


def test_frames_per_second_are_those_between_the_first_and_the_last():
    logged = {i: 7 * SECOND + i * SECOND // 4 for i in range(9)}
    assert Replay(Path(), [], logged, {}, {}).fps() == pytest.approx(4.0)
    assert Replay(Path(), [], {1: 5}, {}, {}).fps() is None


def test_drops_are_told_by_the_node_and_by_what_is_missing():
    said = {"frames_in": "9", "frames_out": "6", "frames_idle": "1", "dropped.bad_step": "2"}
    assert dropped(counts_of({**said, "model": "x", "dropped": "2"}), sent=10, came=5) == {
        "bad_step": 2,
        "idle": 1,
        "not received by the node": 1,
        "not received from the node": 1,
    }
    assert dropped(counts_of({}), 10, 7) == {"the node does not tell": 3}
    assert dropped(counts_of({}), 10, 10) == {}


def test_only_the_node_that_hears_our_images_is_listened_to():
    from mde_ros.datasets.bag_messages import JAZZY

    types = JAZZY.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "")
    status = types["diagnostic_msgs/msg/DiagnosticStatus"]
    pair = types["diagnostic_msgs/msg/KeyValue"]
    statuses = [
        status(0, name, "", "", [pair("image", topic), pair("frames_in", count)])
        for name, topic, count in (("a", "/rear", "1"), ("b", "/front", "2"))
    ]
    kind = "diagnostic_msgs/msg/DiagnosticArray"
    cdr = bytes(JAZZY.serialize_cdr(types[kind](header, statuses), kind))
    assert node_says(cdr, "/front") == {"image": "/front", "frames_in": "2"}
    assert node_says(cdr, "/side") == {}


def test_what_cannot_be_played_is_told_before_anything_is_evaluated(tmp_path, capsys, bag):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for command, expected in (
        (["evaluate", str(pictures), "--live"], "expected a folder with rgb/"),
        (["evaluate", str(tmp_path / "none.mcap"), "--live"], "there is no such bag"),
        (["evaluate", str(bag), "--live", "--rate", "0"], "rate: expected more than 0"),
        (["evaluate", str(bag), "--rate", "2"], "--rate: expected together with --live"),
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert expected in said and len(said.strip().splitlines()) == 1


def test_offline_results_are_kept_when_the_live_run_fails_or_is_interrupted(bag, ramp, tmp_path):
    for error in (LiveError("the node died"), KeyboardInterrupt()):

        def fail(dataset, models, results, error=error):
            raise error

        out = tmp_path / f"{type(error).__name__}.json"
        with pytest.raises(type(error)):
            run_evaluate(str(bag), [str(ramp)], json_path=str(out), live=fail)
        kept = load_results(out)
        assert kept["frames_out"] == 10 and "live" not in kept


def test_topics_of_a_bag_become_names_that_ros2_can_play(bag):
    from mde_ros.datasets.bag_messages import COMPRESSED
    from mde_ros.live.played import PlayedTopics

    raw = PlayedTopics("/device_0/image/data", "/device_0/info", "sensor_msgs/msg/Image", "cam")
    assert (raw.transport, raw.base, raw.heard) == ("raw", *["/device_0/image/data"] * 2)
    jpeg = PlayedTopics("/cam 2/jpeg", "/cam 2/info", COMPRESSED, "cam")
    assert (jpeg.transport, jpeg.base) == ("compressed", "/cam_2/jpeg")
    assert jpeg.heard == "/cam_2/jpeg/compressed" and jpeg.heard_info == "/cam_2/info"
    command = jpeg.player("b.mcap", 2.0)
    assert command[command.index("--remap") + 1] == "/cam 2/jpeg:=/cam_2/jpeg/compressed"
    with pytest.raises(LiveError, match="expected one bag"):
        topics_of(SimpleNamespace(path="x"), SimpleNamespace())


def test_stamps_are_those_of_the_images_in_their_order(bag):
    from mde_ros.nodes.player import open_source

    with open_source(bag) as source:
        assert stamps_of(source, open_dataset(bag)) == [
            SECOND + i * SECOND // 10 for i in range(10)
        ]
