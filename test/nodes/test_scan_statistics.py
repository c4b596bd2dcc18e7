"""Counts, agreement and warnings about scans, without any node."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.scan_statistics import ScanStatistics

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN


def told(statistics, limit=0.15):
    status = statistics.status("node: scans", {"scan": "/scan"}, limit, "cpu")
    return status.level, status.message, {v.key: v.value for v in status.values}


def test_agreement_is_the_median_over_pixels_and_frames_since_the_last_status():
    statistics = ScanStatistics(print)
    statistics.scans_in = 1
    measured = np.array([1.0, 2.0, 10.0])
    for factor in (1.0, 1.1, 1.3):  # medians over pixels: errors 0, 0.2 and 0.6 m
        statistics.compared(factor * measured, measured)
    level, text, values = told(statistics)
    assert (level, text) == (OK, "depth and scan agree within 10 % of the distance")
    assert values["disagreement_m"] == "0.200"
    assert values["disagreement_percent"] == "10.0"
    assert values["scale"] == "1.100"
    assert "disagreement_m" not in told(statistics)[2]


@pytest.mark.parametrize(("limit", "level"), [(0.21, OK), (0.19, WARN)])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_depth_that_is_too_far_from_the_scan_is_a_warning_with_its_size(limit, level, factor):
    statistics = ScanStatistics(print)
    statistics.scans_in = 1
    statistics.compared(factor * np.full(5, 4.0), np.full(5, 4.0))
    got, text, _ = told(statistics, limit)
    assert got == level
    if level == WARN:
        assert "20 % of the distance (0.80 m)" in text


def test_drift_is_the_scale_now_against_the_median_of_the_frames_before():
    statistics = ScanStatistics(print, window=4)
    measured = np.ones(3)
    for scale in (5.0, 1.0, 1.0, 1.0, 2.0):  # the first has left the window by the last
        statistics.compared(scale * measured, measured)
        values = told(statistics)[2]
    assert values["scale_drift"] == "2.000"
    statistics.compared(1.5 * measured, measured)  # against 1, 1, 1, 2
    assert told(statistics)[2]["scale_drift"] == "1.500"


def test_age_and_points_are_medians_since_the_last_status():
    statistics = ScanStatistics(print)
    for age_s, points in ((0.01, 100), (-0.03, 300), (0.02, 200)):
        statistics.used(age_s, points)
    values = told(statistics)[2]
    assert (values["scan_age_ms"], values["points"]) == ("10.0", "200")
    assert values["frames_completed"] == "3" and "points" not in told(statistics)[2]


def test_level_and_words_regard_what_happened_since_the_last_status():
    statistics = ScanStatistics(lambda text: None)
    assert told(statistics)[:2] == (WARN, "no scans on /scan")
    statistics.scans_in += 3
    assert told(statistics)[:2] == (OK, "no depth to compare")
    statistics.scans_in += 1
    statistics.reject(Rejected("scan_empty", "none"))
    assert told(statistics)[:2] == (WARN, "scans rejected: scan_empty 1")
    statistics.scans_in += 1
    statistics.monocular(Rejected("scan_age", "too old"))
    assert told(statistics)[:2] == (WARN, "depth without a scan: scan_age 1")
    statistics.scans_in += 1
    statistics.not_deskewed(Rejected("no_odometry", "none"))
    level, text, values = told(statistics)
    assert (level, text) == (WARN, "scans used as they are: no_odometry 1")
    counts = {k: v for k, v in values.items() if k.startswith(("rejected", "frames_", "scans"))}
    assert counts == {
        "scans_in": "6",
        "rejected": "1",
        "rejected.scan_empty": "1",
        "frames_completed": "0",
        "frames_monocular": "1",
        "frames_monocular.scan_age": "1",
        "frames_not_deskewed": "1",
        "frames_not_deskewed.no_odometry": "1",
    }


def test_what_is_wrong_again_and_again_is_told_once():
    warnings = []
    statistics = ScanStatistics(warnings.append)
    for _ in range(3):
        statistics.reject(Rejected("scan_empty", "none"))
        statistics.jump(0.5)
    assert warnings == [
        "scan rejected: none",
        "stamps of scans jumped back by 0.500 s; going on from there",
    ]
