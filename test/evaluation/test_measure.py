"""What is counted of one frame: moving things, uncertainty, and large images."""

import numpy as np
import pytest

from mde_ros.datasets import Sample
from mde_ros.evaluation.evaluate import EvaluationError, evaluate
from mde_ros.evaluation.measure import POOL_PIXELS, ScoreSettings, measure
from mde_ros.evaluation.score import Scorer
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.metrics import depth_metrics

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


def frames(moving, n=3):
    """Walls at 2 m; the mask is that of every frame."""
    truth = np.full((H, W), 2.0, np.float32)
    truth[:, :4] = 0
    image = np.zeros((H, W, 3), np.uint8)
    return [Sample(Frame(image, CAMERA, stamp_ns=i), truth, f"f{i}", moving) for i in range(n)]


def off_by(metres):
    """A model that is `metres`, an (H, W) map, too far."""
    return {"m": lambda frame: Prediction((2 + metres).astype(np.float32))}


def test_errors_of_what_moves_are_told_from_those_of_what_stands():
    moving = np.zeros((H, W), bool)
    moving[10:30, 20:40] = True
    (model,) = evaluate(frames(moving), off_by(np.where(moving, 0.6, 0.1)))["models"]
    assert model["static"]["abs_rel"] == pytest.approx(0.05, abs=1e-6)
    assert model["dynamic"]["abs_rel"] == pytest.approx(0.3, abs=1e-6)
    share = moving[:, 4:].mean()
    both = share * 0.6 + (1 - share) * 0.1
    assert model["metrics"]["mae_m"] == pytest.approx(both, abs=1e-6)


def test_what_moves_is_scaled_by_the_median_of_all_pixels():
    """All is 1.5 times too far, and what moves 2 times more: the median is that of what stands."""
    moving = np.zeros((H, W), bool)
    moving[10:20, 20:40] = True
    metres = np.where(moving, 2 * 3.0 - 2, 3.0 - 2)
    (model,) = evaluate(frames(moving), off_by(metres))["models"]
    assert model["static_scaled"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert model["dynamic_scaled"]["abs_rel"] == pytest.approx(1, abs=1e-6)
    assert model["dynamic"]["abs_rel"] == pytest.approx(2, abs=1e-6)


def test_frames_in_which_nothing_moves_say_nothing_about_what_moves():
    moving = np.zeros((H, W), bool)
    moving[:20] = True
    data = [frames(moving)[0], frames(np.zeros((H, W), bool))[1], frames(None)[2]]
    (model,) = evaluate(data, off_by(np.where(moving, 0.5, 0.25)))["models"]
    assert model["dynamic"]["abs_rel"] == pytest.approx(0.25, abs=1e-6)
    still = (np.where(moving, 0.5, 0.25)[:, 4:]).mean()
    assert model["static"]["mae_m"] == pytest.approx((0.25 + still) / 2, abs=1e-6)
    (unknown,) = evaluate(frames(None), off_by(np.zeros((H, W))))["models"]
    assert "static" not in unknown and "dynamic" not in unknown and "uncertainty" not in unknown


def test_mask_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(EvaluationError, match="64x48 but its mask of what moves is 20x10"):
        evaluate(frames(np.zeros((10, 20), bool)), off_by(np.zeros((H, W))))


def test_uncertainty_is_held_against_the_errors():
    """Errors of one deviation on the left, of none on the right, and the model knows it."""
    wrong = np.zeros((H, W), bool)
    wrong[:, : W // 2] = True
    depth = (2 + 0.4 * wrong).astype(np.float32)
    sigma = np.where(wrong, 0.3, 0.1).astype(np.float32)
    models = {"m": lambda frame: Prediction(depth, uncertainty=sigma)}
    (model,) = evaluate(frames(None), models)["models"]
    right = (~wrong)[:, 4:].mean()
    assert model["uncertainty"]["within_1_sigma"] == pytest.approx(right)
    assert model["uncertainty"]["within_2_sigma"] == 1.0
    assert model["uncertainty"]["ause"] == pytest.approx(0, abs=1e-6)
    assert model["uncertainty"]["aurg"] > 0.03


def test_large_images_are_scored_whole_and_binned_by_a_fair_share_of_their_pixels():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 9.5, (480, 640)).astype(np.float32)
    predicted = (truth * rng.lognormal(0, 0.2, truth.shape)).astype(np.float32)
    scorer = Scorer()
    scorer.add("f", predicted, truth)
    result = scorer.result()
    exact = depth_metrics(predicted, truth)
    for name, value in exact.items():
        if name not in ("pixels",):
            assert result["metrics"][name] == pytest.approx(value, rel=1e-9)
    bands = result["by_distance"]
    pixels = sum(b["pixels"] for b in bands)
    assert 0.8 * POOL_PIXELS < pixels < 1.2 * POOL_PIXELS
    for band in bands:
        inside = (truth >= band["from_m"]) & (truth < band["to_m"])
        assert band["pixels"] / pixels == pytest.approx(inside.mean(), rel=0.15)
        error = np.abs(predicted - truth)[inside] / truth[inside]
        assert band["abs_rel"] == pytest.approx(error.mean(), rel=0.15)


def test_frames_measured_apart_add_up_to_frames_scored_in_order():
    rng = np.random.default_rng(1)
    truths = [np.float32(2 + rng.random((H, W))) for _ in range(5)]
    one, merged, parts = Scorer(), Scorer(), (Scorer(), Scorer())
    for i, truth in enumerate(truths):
        prediction = Prediction(truth * np.float32(1.1))
        measured = measure(prediction, truth, ScoreSettings())
        one.take(f"f{i}", measured, i)
        if i == 3:
            parts[1].follow(measure(Prediction(truths[2] * 1.1), truths[2], ScoreSettings()), 2)
        parts[i >= 3].take(f"f{i}", measured, i)
    for part in parts:
        merged.merge(part.state())
    assert merged.result()["temporal"]["pairs"] == 4
    assert [i["name"] for i in merged.images] == [f"f{i}" for i in range(5)]
    for key in ("metrics", "median_scaled", "at_depth_edges", "temporal"):
        ours, theirs = merged.result()[key], one.result()[key]
        assert ours == pytest.approx(theirs, rel=1e-12)
