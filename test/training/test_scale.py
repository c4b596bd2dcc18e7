"""The scale of depth from video: a planted one is found, and the model is metric from then on."""

import json

import numpy as np
import pytest
import torch

from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.cli import main
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import DatasetError, Sample
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import unproject
from mde_ros.pipeline import DepthPipeline
from mde_ros.training.scale import fit_scale, open_relative, scaled, write

METRES = 37.5  # per unit
CAMERA = Camera(128, 96, np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]))


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """Tiny networks only wait for a second thread."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


@pytest.fixture(scope="module")
def relative(planted, tmp_path_factory):
    """Checkpoint of a video network with planted weights."""
    path = tmp_path_factory.mktemp("video") / "relative.safetensors"
    spec = {"name": "video", "focal_px": 90.0, "pixels": 96 * 64}
    network = planted("video_mobilenet_v2")
    save(path, Checkpoint("video_mobilenet_v2", network, spec, {"loop": {"seed": 3}}))
    return path


class Drive:
    """Frames with points on what the model sees, METRES per unit; every fifth point is far off."""

    name = "drive"

    def __init__(self, model, points=60, factors=(1.0, 1.0, 1.0)):
        settings = PipelineSettings(model=str(model), min_depth=0.0, max_depth=1000.0)
        pipeline, rng, self.samples = DepthPipeline(settings), np.random.default_rng(0), []
        for i, factor in enumerate(factors):
            image = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
            seen = unproject(pipeline(Frame(image, CAMERA)).depth * METRES * factor, CAMERA)
            chosen = rng.choice(96 * 128, points, replace=False)
            hit = seen.reshape(-1, 3)[chosen]
            hit[::5] *= 3
            self.samples.append(Sample(Frame(image, CAMERA, hit), None, str(i)))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_planted_scale_is_found_though_a_fifth_of_the_points_lie(relative):
    fit = fit_scale(relative, Drive(relative), progress=False)
    assert fit.factor == pytest.approx(METRES, rel=1e-3)
    assert fit.spread < 1e-3 and fit.within < 1e-3
    assert (fit.frames, fit.points) == (3, 180)


def test_spread_is_that_of_the_frames(relative):
    """Factors of 0.9, 1 and 1.1: the median deviates by 10 %, of the normal distribution 14.8."""
    fit = fit_scale(relative, Drive(relative, factors=(0.9, 1.0, 1.1)), progress=False)
    assert fit.factor == pytest.approx(METRES, rel=1e-3)
    assert fit.spread == pytest.approx(0.148, abs=0.002) and fit.within < 1e-3
    assert "14.8% apart from frame to frame" in str(fit)


def test_scaled_model_gives_metres_and_says_how(relative, tmp_path):
    how = {"factor": METRES, "frames": 3}
    onnx = write(scaled(open_relative(relative), METRES, how), tmp_path / "metric.safetensors")
    made = load(tmp_path / "metric.safetensors")
    assert made.spec["metric"] and made.spec["focal_px"] == 90.0
    assert made.settings == {"loop": {"seed": 3}, "scaled": how}
    frame = Drive(relative).samples[0].frame
    wide = {"min_depth": 0.0, "max_depth": 1000.0}
    before, after = (
        DepthPipeline(PipelineSettings(model=str(path), **wide)) for path in (relative, onnx)
    )
    assert not before.runtime.spec.metric and after.runtime.spec.metric
    assert np.allclose(after(frame).depth, METRES * before(frame).depth, rtol=1e-3)


def test_command_scales_by_a_given_factor(relative, tmp_path, capsys):
    out = tmp_path / "metric.safetensors"
    arguments = ["scale", str(relative), "--factor", "2", "--out", str(out), "--json", "-"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"factor": 2.0}
    assert load(out).network.scale == 2 and out.with_suffix(".onnx").is_file()


def test_what_cannot_be_scaled_is_refused_in_a_sentence(relative, students, tmp_path, capsys):
    with pytest.raises(ConfigError, match="trained on video, got fast_mobilenet_v2"):
        open_relative(students["fast_mobilenet_v2"][0])
    with pytest.raises(DatasetError, match="at least 20 LiDAR points in the image, got none"):
        fit_scale(relative, Drive(relative, points=10), progress=False)
    with pytest.raises(ConfigError, match="a number above 0, got -1"):
        scaled(open_relative(relative), -1.0, {})
    with pytest.raises(ConfigError, match=r"a \.safetensors file to write, got model\.onnx"):
        write(open_relative(relative), tmp_path / "model.onnx")
    assert main(["scale", str(relative), "--out", str(tmp_path / "m.safetensors")]) == 2
    assert "expected either --scan DATA or --factor F" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
