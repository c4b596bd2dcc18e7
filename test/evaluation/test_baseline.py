"""A scan makes a model's scale right, and `mde evaluate` shows what that alone is worth."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mde_ros.cli import main
from mde_ros.config import PipelineSettings
from mde_ros.evaluation.baseline import ScanScaled
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.geometry import unproject
from mde_ros.pipeline import DepthPipeline

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


class Says:
    """A pipeline that gives the same depth for every frame."""

    runtime = settings = None

    def __init__(self, depth_m, sigma_m=None):
        self.prediction = Prediction(depth_m, uncertainty=sigma_m)

    def __call__(self, frame):
        return self.prediction

    def output_camera(self, camera):
        return camera


def test_depth_and_deviation_are_scaled_by_the_median_ratio_at_the_points():
    truth = np.linspace(1, 4, H * W, dtype=np.float32).reshape(H, W)
    line = unproject(truth, CAMERA)[30, ::3]
    line[:3] *= 2  # a few wrong returns do not move a median
    frame = Frame(np.zeros((H, W, 3), np.uint8), CAMERA, line.astype(np.float32))
    out = ScanScaled(Says(truth / 1.6, truth / 16))(frame)
    np.testing.assert_allclose(out.depth, truth, rtol=1e-5)
    np.testing.assert_allclose(out.uncertainty, truth / 10, rtol=1e-5)


@pytest.mark.parametrize(
    "points", [None, np.zeros((0, 3), np.float32), np.float32([[0, 0, -1], [np.nan, 0, 1]])]
)
def test_depth_stays_as_it_is_where_no_point_is_seen(points):
    depth = np.full((H, W), 2.0, np.float32)
    frame = Frame(np.zeros((H, W, 3), np.uint8), CAMERA, points)
    np.testing.assert_array_equal(ScanScaled(Says(depth))(frame).depth, depth)


@pytest.fixture
def walls(tmp_path):
    """An RGB-D folder of walls at 3 and 4 metres."""
    folder = tmp_path / "walls"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        image = np.full((H, W, 3), 90, np.uint8)
        cv2.imwrite(str(folder / "rgb" / f"{i}.png"), image)
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), np.full((H, W), 1000 * (i + 3), np.uint16))
    camera = {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "width": W, "height": H}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    return folder


def test_the_command_cuts_a_scan_and_scales_every_model_by_it(walls, wall_model, tmp_path):
    out = tmp_path / "r.json"
    arguments = ["evaluate", str(walls), "--models", wall_model, "--json", str(out)]
    scan = "height=0.4,beams=720"
    assert main([*arguments, "--virtual-scan", scan, "--scan-scaled"]) == 0
    results = json.loads(out.read_text())
    plain, scaled = results["models"]
    assert (plain["name"], scaled["name"]) == ("wall", "wall x median(scan / wall)")
    assert plain["metrics"]["mae_m"] == pytest.approx(1.5)  # 2 m of 3 and 4 m
    assert scaled["metrics"]["mae_m"] == pytest.approx(0, abs=1e-5)
    assert scaled["weights_sha256"] == plain["weights_sha256"]
    assert results["settings"]["evaluate"]["virtual_scan"] == scan
    pixels = plain["per_image"][0]["pixels"]
    assert H * W - 2 * W <= pixels < H * W - W / 2  # the line is left out: a row or two
    whole = tmp_path / "whole.json"
    assert main([*arguments[:-1], str(whole)]) == 0
    results = json.loads(whole.read_text())
    assert results["models"][0]["per_image"][0]["pixels"] == H * W


def test_wrong_use_of_the_scan_is_one_line(walls, wall_model, capsys):
    arguments = ["evaluate", str(walls), "--models", wall_model]
    assert main([*arguments, "--virtual-scan", "low"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mde: virtual scan: expected height=METRES") and error.count("\n") == 1


def test_only_models_without_points_get_the_row(wall_model, monkeypatch):
    from mde_ros.evaluation.parts import Job
    from mde_ros.evaluation.run import EvaluateSettings

    job = Job((wall_model,), EvaluateSettings(scan_scaled=True), PipelineSettings(), {})
    assert list(job.load()) == ["wall", "wall x median(scan / wall)"]
    pipeline = DepthPipeline(PipelineSettings(model=wall_model))
    spec = SimpleNamespace(name="completing", takes_points=True)
    stub = SimpleNamespace(runtime=SimpleNamespace(spec=spec, path=pipeline.runtime.path))
    monkeypatch.setattr("mde_ros.evaluation.parts.DepthPipeline", lambda settings: stub)
    assert list(job.load()) == ["completing"]
