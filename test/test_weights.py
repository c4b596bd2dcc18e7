"""The shipped models: complete, small, the same in every runtime, and better than FastDepth."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from mde_ros.attacks import ifgsm, spoiling
from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan, cut
from mde_ros.evaluation.baseline import ScanScaled
from mde_ros.evaluation.opened import OpenPipeline, load_mask
from mde_ros.frame import Camera, Frame
from mde_ros.metrics import Aggregate, depth_metrics
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import find_model, load_runtime, shipped_models

WEIGHTS = Path(str(resources.files("mde_ros") / "weights"))


SHIPPED = ["completion-fast", "student-fast", "student-published"]


def test_students_and_completion_are_shipped_and_weigh_at_most_12_megabytes():
    assert shipped_models() == SHIPPED
    files = [f for name in shipped_models() for f in WEIGHTS.glob(f"{name}.*")]
    assert sum(f.stat().st_size for f in files) <= 12e6


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_has_a_card_that_names_its_licences(name):
    card = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    for word in ("Data", "Licence", "Seed", "Measured", "Bad at"):
        assert f"## {word}" in card


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("size", [(304, 224), (336, 208)])
def test_onnx_runtime_and_torch_give_the_same_metres_from_the_same_file(name, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    points = np.zeros((size[1], size[0]), np.float32)
    points[140, ::3] = rng.uniform(1, 4, len(points[140, ::3]))
    onnx, torch = (load_runtime(name, runtime, "cpu") for runtime in ("onnxruntime", "torch"))
    assert onnx.sha256 == torch.sha256
    for sparse in (None, points):
        a, b = (runtime(image, 250.0, sparse) for runtime in (onnx, torch))
        assert set(a) == set(b) and a["depth"].shape == b["depth"].shape
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", ["default", "completion"])
@pytest.mark.parametrize("spoilt", [0, 8])
def test_mask_gives_the_same_metres_in_both_runtimes(model, spoilt):
    """Of a plain image, and of one in which it smooths; 8 grey levels turn the smoothing on."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:240, :320] / 320
    plain = (255 * np.stack([rows, columns, 1 - columns], 2)).astype(np.int16)
    image = (plain + spoilt * rng.choice([-1, 1], plain.shape)).clip(0, 255).astype(np.uint8)
    K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    frame = Frame(image, Camera(320, 240, K))
    depths = []
    for runtime in ("onnxruntime", "torch"):
        settings = PipelineSettings(
            model=model, runtime=runtime, defence="mask", device="cpu", threads=1
        )
        depths.append(DepthPipeline(settings)(frame).depth)
    np.testing.assert_allclose(*depths, rtol=2e-3)


def test_mask_costs_little_and_takes_back_what_an_attack_does(shared_data):
    frames = open_dataset(shared_data / "hololens_office")
    n = OpenPipeline(PipelineSettings(device="cpu", threads=1))
    mask = load_mask("auto", n)[0]
    rows = []
    for i in range(len(frames) - 60, len(frames), 20):
        sample = frames[i]
        seen, truth_m = n.see(sample.frame), sample.truth_m
        away_from = torch.from_numpy(truth_m)[None, None]
        loss_of = spoiling(lambda x, seen=seen: n.depth(seen, x), away_from)
        spoilt = ifgsm(loss_of, seen.x, 0.1, 10)
        shown = [x * m for x in (seen.x, spoilt) for m in (1, mask(x))]
        depths = [n.prediction(seen, n.depth(seen, x)[0, 0]).depth for x in shown]
        rows.append([depth_metrics(depth, truth_m)["rmse_m"] for depth in depths])
    clean, defended, attacked, saved = np.mean(rows, 0)
    assert attacked > 1.8 * clean and defended < 1.05 * clean
    assert saved < 0.75 * attacked


def test_the_default_is_shipped():
    assert find_model("default", ".onnx").is_file()


def test_without_points_completion_is_no_worse_than_the_monocular_default(shared_data):
    """Its trunk is the default student; only the input size differs, by four rows."""
    frames = open_dataset(shared_data / "hololens_office")
    errors = {}
    for model in ("default", "completion"):
        pipeline = DepthPipeline(PipelineSettings(model=model, device="cpu"))
        total = Aggregate()
        for i in range(len(frames) - 60, len(frames), 10):
            sample = frames[i]
            assert sample.truth_m is not None and sample.frame.points is None
            total.add(depth_metrics(pipeline(sample.frame).depth, sample.truth_m))
        errors[model] = total.result()["rmse_m"]
    assert errors["completion"] <= 1.03 * errors["default"]


def test_one_line_makes_depth_better_than_none_and_than_its_median_scale(shared_data):
    frames = WithScan(open_dataset(shared_data / "hololens_office"), VirtualScan(0.3))
    mono = DepthPipeline(PipelineSettings(model="default", device="cpu"))
    completed = DepthPipeline(PipelineSettings(model="completion", device="cpu"))
    totals = {model: Aggregate() for model in (mono, ScanScaled(mono), completed)}
    for i in range(len(frames) - 60, len(frames), 6):
        sample = frames[i]
        assert sample.truth_m is not None
        for model, total in totals.items():
            total.add(depth_metrics(model(sample.frame).depth, sample.truth_m))
    alone, scaled, ours = (total.result() for total in totals.values())
    for rival in (alone, scaled):
        assert ours["rmse_m"] < rival["rmse_m"] and ours["abs_rel"] < rival["abs_rel"]


def test_every_further_line_makes_depth_better(shared_data):
    """None, one, three and six lines, above the camera too, where none was in training."""
    frames = open_dataset(shared_data / "hololens_office")
    pipeline = DepthPipeline(PipelineSettings(model="completion", device="cpu"))
    lines = [(), (0.3,), (0.1, 0.3, 0.6), (-0.2, 0.0, 0.1, 0.3, 0.6, 0.8)]
    totals = [Aggregate() for _ in lines]
    for i in range(len(frames) - 60, len(frames), 10):
        sample = frames[i]
        assert sample.truth_m is not None
        truth_m, points = sample.truth_m.copy(), {}
        for height in lines[-1]:
            points[height], used = cut(sample.truth_m, sample.frame.camera, VirtualScan(height))
            truth_m[used] = 0
        for heights, total in zip(lines, totals):
            given = np.concatenate([np.zeros((0, 3), np.float32), *(points[h] for h in heights)])
            depth_m = pipeline(replace(sample.frame, points=given)).depth
            total.add(depth_metrics(depth_m, truth_m))
    errors = [total.result()["rmse_m"] for total in totals]
    assert errors == sorted(errors, reverse=True)


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
