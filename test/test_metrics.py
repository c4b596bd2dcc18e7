"""Metrics against numbers worked out by hand and against plain loops."""

import math

import numpy as np
import pytest

from mde_ros.metrics import (
    Aggregate,
    aggregate,
    depth_metrics,
    edge_metrics,
    sobel_magnitude,
    uncertainty_metrics,
)


def loop_metrics(prediction, truth, strict=False):
    """The definitions of the literature, a pixel at a time."""
    pairs = [
        (float(p), float(t))
        for p, t in zip(prediction.ravel(), truth.ravel())
        if t > 0 and math.isfinite(t) and p > 0 and math.isfinite(p)
    ]
    n = len(pairs)
    out = {
        "rmse_m": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "mae_m": sum(abs(p - t) for p, t in pairs) / n,
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        "sq_rel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "rmse_log": math.sqrt(sum((math.log(p) - math.log(t)) ** 2 for p, t in pairs) / n),
        "pixels": n,
    }
    for k in (1, 2, 3):
        close = [max(p / t, t / p) for p, t in pairs]
        out[f"delta{k}"] = sum(c < 1.25**k if strict else c <= 1.25**k for c in close) / n
    return out


def loop_edges(prediction, truth, threshold):
    """Sobel with the textbook kernels, a pixel at a time."""
    kx = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    ky = kx.T
    found, there = set(), set()
    for i in range(1, truth.shape[0] - 1):
        for j in range(1, truth.shape[1] - 1):
            p, t = (a[i - 1 : i + 2, j - 1 : j + 2] for a in (prediction, truth))
            if not all((np.isfinite(a) & (a > 0)).all() for a in (p, t)):
                continue
            for a, edges in ((p, found), (t, there)):
                if math.hypot((kx * a).sum(), (ky * a).sum()) > threshold:
                    edges.add((i, j))
    both = len(found & there)
    precision, recall = both / len(found), both / len(there)
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 8, (23, 31)).astype(np.float32)
    prediction = (truth * rng.lognormal(0, 0.3, truth.shape)).astype(np.float32)
    truth[:3, :5], truth[5, 5], truth[6, 6] = 0, np.nan, np.inf
    prediction[10, 10], prediction[11, 11], prediction[12, 12] = 0, np.nan, -1
    return prediction, truth


@pytest.mark.parametrize("strict", [False, True])
def test_metrics_equal_a_plain_loop_over_the_definitions(maps, strict):
    ours = depth_metrics(*maps, strict=strict)
    loop = loop_metrics(*maps, strict=strict)
    for name, value in loop.items():
        assert ours[name] == pytest.approx(value, rel=1e-9), name


def test_metrics_of_two_pixels_worked_out_by_hand():
    m = depth_metrics(np.array([[1.0, 4.0]]), np.array([[2.0, 4.0]]))
    assert m["rmse_m"] == pytest.approx(math.sqrt(0.5))
    assert m["mae_m"] == 0.5
    assert m["abs_rel"] == 0.25
    assert m["sq_rel"] == 0.25
    assert m["log10"] == pytest.approx(math.log10(2) / 2)
    assert m["rmse_log"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert (m["delta1"], m["delta2"], m["delta3"]) == (0.5, 0.5, 0.5)


def test_delta_border_counts_by_default_and_not_when_strict():
    prediction, truth = np.array([[1.25, 1.0]]), np.array([[1.0, 1.25]])
    assert depth_metrics(prediction, truth)["delta1"] == 1.0
    assert depth_metrics(prediction, truth, strict=True)["delta1"] == 0.0


def test_truth_without_prediction_lowers_coverage_and_no_error():
    truth = np.array([[1.0, 2.0, 3.0, 4.0, 0.0]])
    prediction = np.array([[1.0, 2.0, 0.0, np.nan, 5.0]])
    m = depth_metrics(prediction, truth)
    assert m["coverage"] == 0.5 and m["pixels"] == 2 and m["rmse_m"] == 0.0


def test_depth_range_drops_truth_outside_and_clamps_predictions():
    truth = np.array([[0.5, 2.0, 10.0, 20.0]])
    prediction = np.array([[9.0, 1.0, 99.0, 1.0]])
    m = depth_metrics(prediction, truth, depth_range=(1.0, 10.0))
    assert m["pixels"] == 2
    assert m["mae_m"] == 0.5  # |1 - 2| and, clamped, |10 - 10|


def test_mask_selects_the_pixels_that_count():
    truth = np.array([[1.0, 1.0]])
    m = depth_metrics(np.array([[1.0, 3.0]]), truth, mask=np.array([[False, True]]))
    assert m["pixels"] == 1 and m["mae_m"] == 2.0


def test_no_valid_pixel_gives_no_number_instead_of_nan():
    m = depth_metrics(np.ones((4, 4)), np.zeros((4, 4)))
    assert m == {"pixels": 0.0, "coverage": 0.0}


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        depth_metrics(np.ones((2, 3)), np.ones((3, 2)))


@pytest.mark.parametrize("threshold", [0.25, 0.5, 1.0])
def test_edges_equal_a_plain_sobel_loop(threshold):
    rng = np.random.default_rng(1)
    truth = np.full((20, 24), 3.0)
    truth[6:14, 8:16] = 2.5
    prediction = truth + rng.normal(0, 0.05, truth.shape)
    truth[9, 9] = 0
    m = edge_metrics(prediction, truth, threshold)
    expected = loop_edges(prediction, truth, threshold)
    assert (m["edge_precision"], m["edge_recall"], m["edge_f1"]) == pytest.approx(expected)


def test_sobel_of_a_ramp_is_eight_times_its_slope():
    ramp = 1 + 0.1 * np.arange(9)[None] * np.ones((7, 1))
    assert np.allclose(sobel_magnitude(ramp), 0.8)


def test_edges_of_identical_maps_score_one():
    depth = np.full((12, 12), 2.0)
    depth[:, 6:] = 4.0
    assert edge_metrics(depth, depth) == {"edge_precision": 1, "edge_recall": 1, "edge_f1": 1}


def test_flat_maps_agree_and_invented_or_missed_edges_score_zero():
    flat, step = np.full((12, 12), 2.0), np.full((12, 12), 2.0)
    step[:, 6:] = 4.0
    assert edge_metrics(flat, flat)["edge_f1"] == 1.0
    assert set(edge_metrics(step, flat).values()) == {0.0}
    assert set(edge_metrics(flat, step).values()) == {0.0}


def test_a_hole_in_the_truth_makes_no_edge():
    truth = np.full((12, 12), 2.0)
    truth[4:8, 4:8] = 0
    assert edge_metrics(np.full((12, 12), 2.0), truth)["edge_f1"] == 1.0
    assert edge_metrics(truth, np.zeros((12, 12))) == {}


def test_aggregation_rules_differ_as_the_papers_do():
    images = [
        {"rmse_m": 1.0, "abs_rel": 0.1, "pixels": 300.0},
        {"rmse_m": 3.0, "abs_rel": 0.3, "pixels": 100.0},
    ]
    assert aggregate(images, "image") == pytest.approx({"rmse_m": math.sqrt(5), "abs_rel": 0.2})
    assert aggregate(images, "mean") == pytest.approx({"rmse_m": 2.0, "abs_rel": 0.2})
    assert aggregate(images, "pixel") == pytest.approx({"rmse_m": 1.5, "abs_rel": 0.15})


def test_an_image_without_valid_pixels_counts_for_coverage_alone():
    total = Aggregate("image")
    total.add({"rmse_m": 2.0, "coverage": 1.0, "pixels": 10.0})
    total.add({"coverage": 0.0, "pixels": 0.0})
    assert total.result() == {"rmse_m": 2.0, "coverage": 0.5} and total.images == 2


def test_unknown_rule_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="image, mean, pixel"):
        Aggregate("median")


def test_pixels_beyond_one_block_count_as_those_of_the_first():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.5, 8, (150, 151)).astype(np.float32)
    prediction = (truth * rng.lognormal(0, 0.3, truth.shape)).astype(np.float32)
    ours = depth_metrics(prediction, truth)
    for name, value in loop_metrics(prediction, truth).items():
        assert ours[name] == pytest.approx(value, rel=1e-9), name


def test_merged_aggregates_equal_one_over_all_images():
    images = [{"rmse_m": 1.0 + i, "abs_rel": 0.1 * i, "pixels": 10.0 + i} for i in range(7)]
    images[2] = {"coverage": 0.0, "pixels": 0.0}
    for rule in ("image", "mean", "pixel"):
        parts = [Aggregate(rule), Aggregate(rule)]
        for i, values in enumerate(images):
            parts[i >= 3].add(values)
        parts[0].merge(parts[1].state())
        assert parts[0].images == 7
        assert parts[0].result() == pytest.approx(aggregate(images, rule), rel=1e-12)


def gaussian_errors(n=40_000):
    """Deviations, predictions and truths whose errors are as large as the deviations say."""
    rng = np.random.default_rng(5)
    sigma, truth = rng.uniform(0.05, 0.5, n), np.full(n, 2.0)
    return sigma, truth + rng.normal(0, sigma), truth


def test_honest_gaussian_deviations_hold_68_and_95_percent_of_the_errors():
    m = uncertainty_metrics(*gaussian_errors())
    assert m["within_1_sigma"] == pytest.approx(0.6827, abs=0.01)
    assert m["within_2_sigma"] == pytest.approx(0.9545, abs=0.01)


def test_sparsification_equals_its_definition_and_is_perfect_for_deviations_like_the_errors():
    sigma, prediction, truth = gaussian_errors(500)
    relative = abs(prediction - truth) / truth

    def area(order):
        """Mean over 50 steps of the mean error of what is left when the last ones are cut."""
        left = [500 - 10 * i for i in range(50)]
        return sum(relative[order][:n].mean() for n in left) / 50

    ours = uncertainty_metrics(sigma, prediction, truth)
    expected = area(np.argsort(sigma)) - area(np.argsort(relative))
    assert ours["ause"] == pytest.approx(expected) and ours["ause"] > 0
    assert ours["aurg"] == pytest.approx(relative.mean() - area(np.argsort(sigma)))
    perfect = uncertainty_metrics(relative, prediction, truth)
    assert perfect["ause"] == pytest.approx(0, abs=1e-12) and perfect["aurg"] > 0
    assert uncertainty_metrics(-relative, prediction, truth) == {}


def test_reversed_deviations_are_worse_than_chance():
    sigma, prediction, truth = gaussian_errors()
    assert uncertainty_metrics(1 - sigma, prediction, truth)["aurg"] < 0
    assert uncertainty_metrics(sigma, prediction, truth)["aurg"] > 0
