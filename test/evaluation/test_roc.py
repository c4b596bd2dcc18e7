"""The ROC of the monitor, against counting pairs."""

import numpy as np
import pytest

from mde_ros.evaluation.roc import auc, curve, detection, threshold_at


@pytest.fixture
def scores():
    """Clean and attacked scores that overlap, with many ties."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 30, 240) / 10, rng.integers(10, 45, 150) / 10


def test_area_is_the_share_of_pairs_in_the_right_order(scores):
    clean, attacked = scores
    pairs = [(a > c) + 0.5 * (a == c) for c in clean for a in attacked]
    assert auc(clean, attacked) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(clean, clean) == pytest.approx(0.5)
    assert auc(clean, clean + 100) == 1 and auc(clean + 100, clean) == 0


def test_curve_has_the_same_area_and_runs_from_no_alarm_to_always(scores):
    false_alarms, detections = curve(*scores)
    assert (false_alarms[0], detections[0]) == (0, 0)
    assert (false_alarms[-1], detections[-1]) == (1, 1)
    area = np.sum(np.diff(false_alarms) * (detections[1:] + detections[:-1]) / 2)
    assert area == pytest.approx(auc(*scores), abs=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1])
def test_threshold_is_the_least_with_no_more_false_alarms_than_allowed(scores, rate):
    clean, _ = scores
    threshold = threshold_at(clean, rate)
    assert (clean > threshold).mean() <= rate
    lower = [c for c in clean if c < threshold]
    assert (clean > max(lower)).mean() > rate


def test_detection_at_a_given_threshold_counts_what_is_above_it(scores):
    clean, attacked = scores
    found = detection(clean, attacked, 2.0)
    assert found["detected"] == sum(a > 2.0 for a in attacked) / len(attacked)
    assert found["false_alarms"] == sum(c > 2.0 for c in clean) / len(clean)
    assert detection(clean, attacked)["false_alarms"] <= 0.01
