"""The benchmark against stand-ins whose time is known because they sleep it."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mde_ros.config import PipelineSettings
from mde_ros.evaluation import benchmark
from mde_ros.evaluation.benchmark import (
    BenchmarkError,
    Candidate,
    make_frames,
    measure_pipelines,
    row,
    run_benchmark,
)
from mde_ros.evaluation.benchmark_table import defence_costs
from mde_ros.evaluation.laser import cost_sentence, make_scans, scan_costs, with_points
from mde_ros.frame import Prediction
from mde_ros.isolation import own_domain


class Sleeper:
    """A pipeline that takes as long as it is told: prepare 2 ms, finish 1 ms, network `ms`.

    It keeps the number of points of every frame it gets, None without.
    """

    def __init__(self, ms: float, takes_points: bool = False, defence: str = "off") -> None:
        self.settings = PipelineSettings(threads=1, defence=defence)
        self.ms = ms
        self.points = []
        path = SimpleNamespace(name="sleeper.onnx")
        self.runtime = _Network(self, path)
        self.runtime.spec = SimpleNamespace(name="sleeper", takes_points=takes_points)

    def optics(self, camera):
        return SimpleNamespace(network=camera)

    def prepare(self, frame, optics):
        time.sleep(0.002)
        self.points.append(None if frame.points is None else len(frame.points))
        return frame.image, None

    def infer(self, image, focal_px, sparse):
        """Thrice the network's time under monitor, twice under mask."""
        for _ in range(("off", "mask", "monitor").index(self.settings.defence)):
            self.runtime(image, focal_px, sparse)
        return self.runtime(image, focal_px, sparse)

    def finish(self, outputs, optics):
        time.sleep(0.001)
        return Prediction(outputs["depth"])

    def __call__(self, frame):
        image, sparse = self.prepare(frame, None)
        return self.finish(self.infer(image, 1.0, sparse), None)


class _Network:
    name, device, sha256 = "onnxruntime", "cpu", "0" * 64

    def __init__(self, owner, path) -> None:
        self.owner, self.path = owner, path

    def __call__(self, image, focal_px, sparse=None):
        time.sleep(self.owner.ms / 1e3)
        return {"depth": np.zeros(image.shape[:2], np.float32)}


def test_parts_and_frame_rate_are_the_planted_times():
    slow, fast = Candidate("slow", "a", Sleeper(20)), Candidate("fast", "b", Sleeper(5))
    measure_pipelines([slow, fast], make_frames(64, 48), make_scans(90), calls=20)
    a, b = row(slow, None, None), row(fast, None, None)
    # A sleep is never shorter than told; how much longer it is depends on who else is running.
    assert 20 <= a["network_ms"] < 40 and 5 <= b["network_ms"] < 20
    assert 3 <= a["other_ms"] < 15
    assert 1e3 / 60 < a["pipeline_fps"] <= 1e3 / 23
    assert b["network_cpu_ms"] < 2  # a sleeping network needs no CPU
    assert len(slow.spent_ms["network"]) == len(fast.spent_ms["network"]) == 20


def test_all_else_is_the_sum_of_its_parts():
    candidate = Candidate("m", "m", Sleeper(1))
    candidate.spent_ms = {k: [v] for k, v in
                          {"prepare": 0.2, "network": 5.0, "finish": 0.3, "network_cpu": 9.0,
                           "pipeline": 5.5}.items()}  # fmt: skip
    messages = {"image_to_rgb": 0.05, "depth_message": 0.1, "cloud_message": 1.0,
                "colour_message": 9.0}  # fmt: skip
    entry = row(candidate, messages, None)
    assert entry["other_ms"] == pytest.approx(0.65)
    assert entry["other_with_cloud_ms"] == pytest.approx(1.65)
    assert entry["node_fps"] is None


def test_scan_becomes_the_points_that_a_camera_above_it_sees():
    """By hand: a beam at angle a and range r lies at x = -r sin a, y = 0.2, z = r cos a."""
    frame, (scan,) = make_frames(64, 48)[0], make_scans(541, 1)
    points = with_points(frame, scan).points
    angles = np.radians(np.linspace(-135, 135, 541))
    ranges = np.array(scan.ranges)
    expected = np.stack([-ranges * np.sin(angles), np.full(541, 0.2), ranges * np.cos(angles)], 1)
    K = frame.camera.K
    u = K[0, 0] * expected[:, 0] / expected[:, 2] + K[0, 2]
    v = K[1, 1] * expected[:, 1] / expected[:, 2] + K[1, 2]
    seen = (expected[:, 2] > 0) & (abs(u - 31.5) < 32) & (abs(v - 23.5) < 24)
    assert 50 < seen.sum() < 541
    assert points == pytest.approx(expected[seen], abs=1e-5)


def test_only_a_network_that_takes_points_gets_a_scan_and_its_time_counts():
    mono, completion = Sleeper(1), Sleeper(1, takes_points=True)
    pair = [Candidate("mono", "m", mono), Candidate("completion", "c", completion)]
    measure_pipelines(pair, make_frames(64, 48), make_scans(720), calls=20)
    assert set(mono.points) == {None} and min(completion.points) > 100
    with_scan, without = (c.spent_ms.get("scan") for c in reversed(pair))
    assert without is None and len(with_scan) == 20
    entry = row(pair[1], None, None)
    parts = entry["parts_ms"]
    assert entry["other_ms"] == pytest.approx(parts["scan"] + parts["prepare"] + parts["finish"])


def test_cost_of_a_scan_is_the_difference_from_the_first_mono_model_on_the_same_runtime():
    def entry(name, runtime, network_ms, other_ms, takes_points=False):
        return {"name": name, "runtime": runtime, "device": "cpu", "network_ms": network_ms,
                "other_ms": other_ms, "takes_points": takes_points}  # fmt: skip

    rows = [
        entry("fast", "torch", 20.0, 1.0),
        entry("fast", "onnxruntime", 4.0, 1.0),
        entry("other", "onnxruntime", 8.0, 2.0),
        entry("completion", "onnxruntime", 5.0, 1.25, True),
        entry("completion", "openvino", 5.0, 1.25, True),
    ]
    (cost,) = scan_costs(rows)
    assert (cost["name"], cost["beside"], cost["runtime"]) == ("completion", "fast", "onnxruntime")
    assert (cost["adds_ms"], cost["network_ratio"]) == (0.25, 1.25)
    assert "adds 0.25 ms" in cost_sentence(cost) and "1.25 times" in cost_sentence(cost)


def test_frames_of_any_size_keep_the_field_of_view():
    small, large = make_frames(320, 240)[0].camera, make_frames(1280, 960)[0].camera
    assert large.focal_px == 4 * small.focal_px == 2 * benchmark.FOCAL_AT_640


def test_file_holds_every_key_of_the_format_and_says_what_was_left_out(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark, "DepthPipeline", lambda settings: _of(settings))
    out = tmp_path / "benchmark.json"
    models = ["a", "completion"]
    assert run_benchmark(models, frames=10, size=(64, 48), node=False, json_path=str(out)) == 0
    result = json.loads(out.read_text())
    assert {"machine", "frames", "rows"} <= set(result)
    for entry in result["rows"]:
        assert {"name", "runtime", "threads", "network_ms", "other_ms", "node_fps", "latency_ms",
                "cpu_ms_per_frame", "rss_mb"} <= set(entry)  # fmt: skip
    assert [r["name"] for r in result["rows"]] == models
    assert result["beams"] == 720 and [c["name"] for c in result["scan"]] == ["completion"]
    assert all("on torch" in k or "on openvino" in k for k in result["skipped"])
    printed = capsys.readouterr().out
    assert "times a" in printed and "its scan adds" in printed


def _of(settings):
    if settings.runtime != "onnxruntime":
        raise benchmark.ModelError("not here")
    sleeper = Sleeper(2, settings.model.startswith("completion"), settings.defence)
    sleeper.runtime.spec.name = settings.model
    return sleeper


def test_defences_are_told_in_multiples_of_the_same_model_without(tmp_path, monkeypatch, capsys):
    def pipeline(settings):
        if settings.defence == "monitor" and settings.model == "b":
            raise benchmark.ModelError("no threshold")
        return _of(settings)

    monkeypatch.setattr(benchmark, "DepthPipeline", pipeline)
    out = str(tmp_path / "benchmark.json")
    run_benchmark(["a", "b"], frames=10, size=(64, 48), node=False, defence=True, json_path=out)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    names = [r["name"] for r in result["rows"]]
    assert names == ["a", "a, mask", "a, monitor", "b", "b, mask"]
    assert result["skipped"]["monitor of b on onnxruntime"] == "no threshold"
    for cost in result["defence"]:  # who sleeps twice or thrice; how exactly, the others decide
        assert cost["network_ratio"] > 1 and cost["frame_ratio"] > 1
    assert [c["name"] for c in result["defence"]] == ["a, mask", "a, monitor", "b, mask"]
    assert "a, mask on onnxruntime: network" in capsys.readouterr().out


def test_cost_of_a_defence_is_held_against_the_same_weights_on_the_same_runtime():
    def entry(name, runtime, defence, network_ms, pipeline_ms):
        return {"name": name, "file": f"{name[0]}.onnx", "weights_sha256": name[0], "device": "cpu",
                "runtime": runtime, "defence": defence, "network_ms": network_ms,
                "pipeline_ms": pipeline_ms}  # fmt: skip

    rows = [
        entry("a", "torch", "off", 9.0, 10.0),
        entry("b", "onnxruntime", "off", 4.0, 5.0),
        entry("a", "onnxruntime", "off", 2.0, 3.0),
        entry("a, mask", "onnxruntime", "mask", 5.0, 6.0),
        entry("a, monitor", "onnxruntime", "monitor", 7.0, 9.0),
    ]
    mask, monitor = defence_costs(rows)
    assert (mask["name"], mask["network_ratio"], mask["frame_ratio"]) == ("a, mask", 2.5, 2.0)
    assert (monitor["network_ratio"], monitor["frame_ratio"]) == (3.5, 3.0)


@pytest.mark.parametrize(("device", "tried"), [("cpu", False), ("cuda:0", True)])
def test_tensorrt_is_tried_on_a_gpu_only(monkeypatch, device, tried):
    asked = []

    def pipeline(settings):
        asked.append(settings.runtime)
        sleeper = _of(settings)
        sleeper.runtime.device = device
        return sleeper

    monkeypatch.setattr(benchmark, "DepthPipeline", pipeline)
    benchmark.find_candidates(["a"], PipelineSettings(device=device))
    assert ("tensorrt" in asked) == tried


def test_probe_stays_in_a_domain_of_its_own_whatever_domain_the_robot_has(monkeypatch):
    robot = {"ROS_DOMAIN_ID": "215", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
             "ROS_LOCALHOST_ONLY": "0", "ROS_STATIC_PEERS": "10.0.0.1"}  # fmt: skip
    monkeypatch.setenv("ROS_DISTRO", "humble")
    for name, value in robot.items():
        monkeypatch.setenv(name, value)
    seen = {}

    def run(command, env, **_):
        seen.update(env)
        return SimpleNamespace(returncode=0, stdout="{}")

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    benchmark.probe(make_frames(64, 48), [])
    assert seen["ROS_DOMAIN_ID"] != "215" and seen["ROS_STATIC_PEERS"] == ""
    assert (
        seen["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST" and seen["ROS_LOCALHOST_ONLY"] == "1"
    )


def test_two_measurements_at_once_have_two_domains():
    with own_domain() as one, own_domain() as two:
        assert one["ROS_DOMAIN_ID"] != two["ROS_DOMAIN_ID"]


def test_no_model_that_runs_is_one_sentence():
    with pytest.raises(
        BenchmarkError, match=r"no model can be run here \(none.onnx on onnxruntime"
    ):
        run_benchmark(["none.onnx"], frames=10, node=False)


def test_too_few_frames_or_beams_are_refused():
    with pytest.raises(BenchmarkError, match="expected at least 10, got 3"):
        run_benchmark(frames=3)
    with pytest.raises(BenchmarkError, match="beams: expected at least 2, got 1"):
        run_benchmark(beams=1)
