"""The demo: real node and player as processes; what is judged is what came back over DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "datasets"))
sys.path.append(str(Path(__file__).parent / "nodes"))
import recording
from robot import write_completion, write_network

from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.bag_file import Bag, BagError, BagWriter
from mde_ros.datasets.bag_messages import (
    COMPRESSED,
    IMAGE_TOPIC,
    INFO_TOPIC,
    JAZZY,
    SAMPLE_TOPICS,
    SCAN,
    depth_metres,
    sample_messages,
)
from mde_ros.demo import DemoError, comparison, node_settings, run_demo, scan_baselines
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.pictures import load_pictures
from mde_ros.evaluation.results import load_results
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import pose, project
from mde_ros.isolation import ChildError
from mde_ros.live.evaluation import measure_live
from mde_ros.live.played import LiveError, scan_settings, topics_of
from mde_ros.live.replay import DEPTH, NAMESPACE, Arrived, Replay, replay
from mde_ros.nodes.player import open_source
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import ModelError, sha256_of

SECOND = 1_000_000_000
WIDTH, HEIGHT = 64, 48
CAMERA = Camera(WIDTH, HEIGHT, np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]))


@pytest.fixture
def ramp(tmp_path):
    """A network whose depth is the red value in decimetres, pixel by pixel."""
    return write_network(tmp_path / "ramp.onnx", per_red=0.1, metres=0.0, size=(WIDTH, HEIGHT))


def frames(n: int) -> list[tuple[Frame, np.ndarray]]:
    """Pictures whose red is 10 to 100, and a truth 1.6 times as far as the ramp will say."""
    random = np.random.default_rng(3)
    out = []
    for _ in range(n):
        image = random.integers(10, 101, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        out.append((Frame(image, CAMERA), image[..., 0] * np.float32(0.16)))
    return out


def write_bag(path: Path, n: int, with_depth: bool = True, rate_hz: int = 10) -> Path:
    with BagWriter(path) as bag:
        for i, (frame, truth_m) in enumerate(frames(n)):
            stamp = 1_700_000_000 * SECOND + i * SECOND // rate_hz
            for topic, t, cdr in sample_messages(frame, truth_m if with_depth else None, stamp):
                bag.write(topic, SAMPLE_TOPICS[topic], t, cdr)
    return path


def children_of(pid: int, mark: str) -> list[int]:
    """Processes with `mark` in their command line that were started below a process, or ever."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in command and "mde_ros.nodes" in command and int(entry.name) != pid:
            found.append(int(entry.name))
    return found


def test_the_demo_reports_the_planted_error_of_the_depth_that_came_over_dds(tmp_path, ramp, capsys):
    bag, out = write_bag(tmp_path / "planted.mcap", 12), tmp_path / "demo"
    environment = dict(os.environ)
    assert run_demo(bag=str(bag), model=str(ramp), output=str(out), progress=False) == 0
    results = load_results(out / "results.json")  # holds it against the format

    # Predicted is truth / 1.6: AbsRel 0.375, ratio 1.6 between 1.25² and 1.25³.
    model = results["models"][0]
    metrics, scaled = model["metrics"], model["median_scaled"]
    truth_m = 0.16 * np.concatenate([f.image[..., 0] for f, _ in frames(12)]).astype(float)
    assert metrics["abs_rel"] == pytest.approx(0.375, abs=1e-5)
    assert (metrics["delta1"], metrics["delta2"], metrics["delta3"]) == (0, 0, 1)
    assert metrics["log10"] == pytest.approx(np.log10(1.6), abs=1e-5)
    arrived_all = results["frames_out"] == 12
    assert metrics["rmse_m"] == pytest.approx(
        np.sqrt(np.mean((0.375 * truth_m) ** 2)), rel=1e-4 if arrived_all else 0.05
    )
    assert scaled["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert model["weights_sha256"] == sha256_of(ramp)

    # Every frame is accounted for.
    assert results["frames_in"] == 12 and 1 <= results["frames_out"] <= 12
    assert results["frames_out"] + sum(results["dropped"].values()) == 12
    assert 0 < results["latency_ms"]["p50"] <= results["latency_ms"]["p95"]

    with Bag(out / "output.mcap") as recorded:
        assert recorded.topics[DEPTH].count == results["frames_out"]
        assert recorded.topics[f"{NAMESPACE}/points"].count >= 1
        assert recorded.topics["/diagnostics"].count >= 1
    page = (out / "report.html").read_text()
    assert page.count("data:image/") >= 5
    assert 'src="http' not in page and 'href="http' not in page
    said = capsys.readouterr().out
    assert "0.375" in said and "report.html" in said
    assert not children_of(os.getpid(), str(bag)) and not children_of(os.getpid(), str(ramp))
    assert dict(os.environ) == environment


def test_recorded_depth_is_the_pipelines_bit_for_bit_also_from_a_folder(tmp_path, ramp):
    folder = tmp_path / "rgbd"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    numbers = {"fx": 60, "fy": 60, "cx": 32, "cy": 24, "width": WIDTH, "height": HEIGHT}
    (folder / "intrinsics.json").write_text(json.dumps(numbers))
    for i, (frame, truth_m) in enumerate(frames(5)):
        cv2.imwrite(str(folder / "rgb" / f"{i}.png"), frame.image[..., ::-1])
        depth_mm = np.rint(truth_m * 1000).astype(np.uint16)
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), depth_mm)
    dataset = open_dataset(folder)
    live = replay(folder, dataset, tmp_path / "out", str(ramp), progress=False)
    arrived, pipeline = Arrived(dataset, live), DepthPipeline(PipelineSettings(model=str(ramp)))
    assert len(arrived) >= 1 and len(live.stamps_ns) == 5
    for i, sample in zip(arrived.indices, arrived):
        source = dataset[i]
        np.testing.assert_array_equal(sample.frame.image, source.frame.image)
        np.testing.assert_array_equal(sample.truth_m, source.truth_m)
        came = arrived.depth_of(sample.frame).depth
        np.testing.assert_array_equal(came, pipeline(source.frame).depth)


def test_a_compressed_bag_without_depth_still_tells_latency_and_drops(tmp_path, ramp):
    kind = JAZZY.types[COMPRESSED]
    with BagWriter(tmp_path / "a.mcap") as bag:
        for i, (frame, _) in enumerate(frames(5)):
            stamp = SECOND + i * SECOND // 10
            messages = {t: m for t, _, m in sample_messages(frame, None, stamp)}
            image = JAZZY.deserialize_cdr(messages[IMAGE_TOPIC], SAMPLE_TOPICS[IMAGE_TOPIC])
            png = cv2.imencode(".png", frame.image[..., ::-1])[1].ravel()
            cdr = JAZZY.serialize_cdr(kind(image.header, "rgb8; png compressed", png), COMPRESSED)
            bag.write(INFO_TOPIC, SAMPLE_TOPICS[INFO_TOPIC], stamp, messages[INFO_TOPIC])
            bag.write("/front/jpeg", COMPRESSED, stamp, bytes(cdr))
    out = tmp_path / "demo"
    bag_path = str(tmp_path / "a.mcap")
    assert run_demo(bag=bag_path, model=str(ramp), output=str(out), progress=False) == 0
    results = load_results(out / "results.json")
    assert results["models"][0]["metrics"] == {}
    assert results["frames_out"] + sum(results["dropped"].values()) == 5
    assert results["latency_ms"]["p50"] > 0
    with Bag(out / "output.mcap") as recorded:
        depths = [depth_metres(recorded.decode(t, raw)) for t, _, raw in recorded.messages([DEPTH])]
    expected = [f.image[..., 0] * np.float32(0.1) for f, _ in frames(5)]
    for depth in depths:
        assert any(np.allclose(depth, e, atol=1e-5) for e in expected)


def test_frames_that_went_missing_are_told_apart():
    said = {"frames_in": "90", "frames_out": "80", "frames_idle": "3", "dropped": "7",
            "dropped.bad_step": "5", "dropped.no_camera_info": "2", "model": "x"}  # fmt: skip
    live = Replay(Path("x"), list(range(100)), {i: i for i in range(78)}, {}, said)
    assert live.dropped() == {
        "bad_step": 5,
        "no_camera_info": 2,
        "idle": 3,
        "not received by the node": 10,
        "not received from the node": 2,
    }


def test_a_node_that_cannot_start_is_told_with_its_reason_and_leaves_nothing(tmp_path):
    bag, out = write_bag(tmp_path / "a.mcap", 2), tmp_path / "demo"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ChildError, match="not a readable ONNX network"):
        run_demo(bag=str(bag), model=str(broken), output=str(out), progress=False)
    assert not (out / "results.json").exists() and not (out / "output.mcap").exists()
    assert not children_of(os.getpid(), str(broken))


def test_what_the_user_names_wrongly_is_told_before_anything_starts(tmp_path):
    bag = str(write_bag(tmp_path / "a.mcap", 2))
    begun = time.monotonic()
    with pytest.raises(ModelError, match="nonsense"):
        run_demo(bag=bag, model="nonsense", output=str(tmp_path / "demo"))
    with pytest.raises(ValueError, match="no such file"):
        run_demo(bag=str(tmp_path / "none.mcap"), output=str(tmp_path / "demo"))
    with pytest.raises(DemoError, match="both"):
        run_demo(bag=bag, folder=bag, output=str(tmp_path / "demo"))
    (tmp_path / "empty.mcap").write_bytes(b"")
    with pytest.raises(BagError):
        run_demo(bag=str(tmp_path / "empty.mcap"), output=str(tmp_path / "demo"))
    assert time.monotonic() - begun < 5


def test_ctrl_c_ends_the_demo_and_all_that_it_started(tmp_path, ramp):
    bag, out = write_bag(tmp_path / "long.mcap", 60), tmp_path / "demo"
    code = (
        "import sys; from mde_ros.demo import run_demo;"
        f"sys.exit(run_demo(bag={str(bag)!r}, model={str(ramp)!r}, output={str(out)!r}, rate=0.2))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 40
        while not (children_of(process.pid, str(bag)) and children_of(process.pid, str(ramp))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().strip() == "interrupted"
    finally:
        process.kill()
        process.wait()
    assert not children_of(0, str(bag)) and not children_of(0, str(ramp))
    assert not (out / "results.json").exists() and not (out / "output.mcap").exists()


# ------------------------------------------------------------------------------ --completion


STAMPS = [SECOND + i * SECOND // 10 for i in range(8)]
FAR_M = 9.0  # what the stub completes the scan with


@pytest.fixture
def line_bag(tmp_path):
    """A robot that stands in a room, and a truth that is the scan at its pixels and 9 m elsewhere.

    Returns (bag, truth (H, W) metres).
    """
    scan = recording.laser_scan(SECOND)
    angles = scan.angle_min + scan.angle_increment * np.arange(recording.BEAMS)
    hits = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * scan.ranges[:, None]
    seen = hits @ recording.RIGHT_POSE[:3, :3].T + recording.RIGHT_POSE[:3, 3]
    seen = seen[np.argsort(-seen[:, 2])]  # the nearest counts, and is written last
    pixels, z = project(seen, recording.CAMERA)
    columns, rows = np.rint(pixels).astype(int).T
    inside = (z > 0) & (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    truth_m = np.full((HEIGHT, WIDTH), FAR_M, np.float32)
    truth_m[rows[inside], columns[inside]] = z[inside]
    assert (truth_m < FAR_M).sum() > 40
    scans = [
        ("/scan", s, SCAN, recording.laser_scan(SECOND, header=recording.header(s, "laser")))
        for s in STAMPS
    ]
    images = recording.images(STAMPS, depth_m=truth_m)
    path = recording.write(tmp_path / "line.mcap", recording.mounting(STAMPS[0]), scans, images)
    return path, truth_m


def test_the_completion_demo_scores_a_perfect_node_as_perfect_and_the_others_as_offline(
    tmp_path, line_bag, capsys, monkeypatch
):
    monkeypatch.setattr("mde_ros.evaluation.report._charts", lambda rows: [])  # take seconds
    bag, _ = line_bag
    model, out = write_completion(tmp_path / "line.onnx"), tmp_path / "demo"
    settings = {"bag": str(bag), "model": str(model), "output": str(out), "progress": False}
    assert run_demo(completion=True, **settings) == 0
    results = load_results(out / "results.json")
    node, *others = results["models"]
    assert results["frames_in"] == len(STAMPS)
    assert results["frames_out"] + sum(results["dropped"].values()) == len(STAMPS)
    assert node["metrics"]["rmse_m"] < 1e-3 and node["metrics"]["abs_rel"] < 1e-3
    assert len(results["settings"]["node"]["laser_to_camera"].split()) == 7
    assert node["weights_sha256"] == sha256_of(model) and node["latency_ms"]["p50"] > 0
    # The stub is sure to an eighth of its depth, and off by half a millimetre at most.
    assert node["uncertainty"]["within_1_sigma"] == 1

    offline = evaluate(open_dataset(bag), scan_baselines())["models"]
    assert [m["name"] for m in others] == [m["name"] for m in offline] and len(others) == 2
    for live, expected in zip(others, offline):
        assert live["latency_ms"] == {}
        by_index = {image["index"]: image for image in expected["per_image"]}
        for image in live["per_image"]:
            for key in ("rmse_m", "abs_rel", "delta1", "scale"):
                assert image[key] == by_index[image["index"]][key]

    assert len(results["verdict"]) == 2
    said = capsys.readouterr().out
    page = (out / "report.html").read_text()
    for sentence in results["verdict"]:
        assert sentence.startswith("stub is better than student-fast")
        assert sentence in said and sentence in page
    pictures = load_pictures(out / "results.npz")
    assert page.count("camera image and scan") == len(pictures) >= 1
    for picture in pictures:  # the robot stands
        np.testing.assert_array_equal(picture.points, open_dataset(bag)[0].frame.points)
    assert not children_of(os.getpid(), str(bag)) and not children_of(os.getpid(), str(model))


def test_a_model_that_takes_points_is_live_what_it_is_offline_bit_for_bit(tmp_path, line_bag):
    bag, truth_m = line_bag
    pipeline = DepthPipeline(PipelineSettings(model=str(write_completion(tmp_path / "line.onnx"))))
    dataset = open_dataset(bag)
    assert pipeline(dataset[0].frame).depth == pytest.approx(truth_m, abs=1e-3)
    live = measure_live(bag, dataset, pipeline, rate=2.0, progress=False)
    assert live["identical"] == live["frames_out"] >= 1


def test_the_node_is_told_where_the_laser_is_by_tf_static_unless_the_user_tells(line_bag, tmp_path):
    def settings_of(bag: Path, given: str = "") -> dict[str, str]:
        with open_source(bag) as source:
            return scan_settings(source, topics_of(source, open_dataset(bag)), given)

    settings = settings_of(line_bag[0])
    numbers = np.array(settings["laser_to_camera"].split(), float)
    np.testing.assert_allclose(pose(numbers[:3], numbers[3:]), recording.RIGHT_POSE, atol=1e-12)
    assert settings["scan_type"] == "LaserScan"

    scans = [("/scan", s, SCAN, recording.laser_scan(s)) for s in STAMPS[:2]]
    lost = recording.write(tmp_path / "lost.mcap", scans, recording.images(STAMPS[:2]))
    with pytest.raises(LiveError, match=r"expected its /tf_static to tell .*--laser-to-camera"):
        settings_of(lost)
    flags = {"laser_to_camera": (0.0, 0.2, 0.0, 0.5, -0.5, 0.5, 0.5), "image_topic": "/front"}
    told = node_settings({**flags, "max_scan_age": 0.1}, completion=True)
    assert told == {"laser_to_camera": "0.0 0.2 0.0 0.5 -0.5 0.5 0.5", "max_scan_age": 0.1}
    assert settings_of(lost, told["laser_to_camera"])["laser_to_camera"] == told["laser_to_camera"]
    assert node_settings(flags, completion=False) == {}


def test_a_bag_without_a_scan_is_refused_before_anything_starts(tmp_path):
    bag = str(write_bag(tmp_path / "a.mcap", 2))
    with pytest.raises(LiveError, match="expected a LiDAR's scans"):
        run_demo(bag=bag, completion=True, output=str(tmp_path / "demo"), progress=False)


def test_better_means_smaller_errors_of_both_kinds():
    def entry(name: str, rmse_m: float, abs_rel: float) -> dict:
        return {"name": name, "metrics": {"rmse_m": rmse_m, "abs_rel": abs_rel}}

    def words(rmse_m: float, abs_rel: float) -> str:
        return comparison(entry("a", rmse_m, abs_rel), entry("b", 0.5, 0.1))

    figures = "RMSE 0.400 m against 0.500 m, AbsRel 0.050 against 0.100"
    assert words(0.4, 0.05) == f"a is better than b: {figures}"
    assert words(0.4, 0.2).startswith("a is better only in RMSE than b: RMSE 0.400 m")
    assert words(0.6, 0.05).startswith("a is better only in AbsRel than b: ")
    assert words(0.5, 0.1).startswith("a is not better than b: ")
