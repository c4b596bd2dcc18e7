"""The shipped models: complete, small, the same in every runtime, and better than FastDepth."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.metrics import Aggregate, depth_metrics
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import find_model, load_runtime, shipped_models

WEIGHTS = Path(str(resources.files("mde_ros") / "weights"))


def test_both_students_are_shipped_and_weigh_at_most_12_megabytes():
    assert shipped_models() == ["student-fast", "student-published"]
    files = [f for name in shipped_models() for f in WEIGHTS.glob(f"{name}.*")]
    assert sum(f.stat().st_size for f in files) <= 12e6


@pytest.mark.parametrize("name", ["student-fast", "student-published"])
def test_every_shipped_model_has_a_card_that_names_its_licences(name):
    card = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    for word in ("Data", "Licence", "Seed", "Measured", "Bad at"):
        assert f"## {word}" in card


@pytest.mark.parametrize("name", ["student-fast", "student-published"])
@pytest.mark.parametrize("size", [(304, 228), (328, 216)])
def test_onnx_runtime_and_torch_give_the_same_metres_from_the_same_file(name, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    onnx, torch = (load_runtime(name, runtime, "cpu") for runtime in ("onnxruntime", "torch"))
    assert onnx.sha256 == torch.sha256
    a, b = (runtime(image, 250.0)["depth"] for runtime in (onnx, torch))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_default_is_shipped():
    assert find_model("default", ".onnx").is_file()


def test_the_default_beats_fastdepth_on_frames_it_was_not_trained_on(shared_data):
    fastdepth = shared_data / "weights" / "fastdepth_nyu" / "fastdepth_7.onnx"
    frames = open_dataset(shared_data / "hololens_office")
    scores = []
    for model in ("default", str(fastdepth)):
        pipeline = DepthPipeline(PipelineSettings(model=model, device="cpu"))
        total = Aggregate()
        for i in range(len(frames) - 60, len(frames), 10):
            sample = frames[i]
            assert sample.truth_m is not None
            total.add(depth_metrics(pipeline(sample.frame).depth, sample.truth_m))
        scores.append(total.result())
    ours, theirs = scores
    assert ours["rmse_m"] < theirs["rmse_m"]
    assert ours["abs_rel"] < theirs["abs_rel"]
    assert ours["delta1"] > theirs["delta1"]
