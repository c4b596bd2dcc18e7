"""Counts, latencies and warnings of a node, without any node."""

from diagnostic_msgs.msg import DiagnosticStatus

from mde_ros.nodes import diagnostics
from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.diagnostics import Statistics

ABOUT = {"image": "/image", "device": "cpu"}


def status(statistics: Statistics) -> DiagnosticStatus:
    return statistics.status("node", ABOUT)


def test_percentiles_are_those_of_the_last_frames_only():
    statistics = Statistics(print, window=101)
    assert statistics.percentiles_ms() == {}
    for latency_s in [9.0] * 50 + [i / 1000 for i in range(101)]:
        statistics.published(latency_s)
    assert statistics.percentiles_ms() == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_a_latency_that_no_camera_can_have_is_counted_and_left_out():
    statistics = Statistics(print)
    for latency_s in (0.02, -0.001, 1.7e9, 0.02, diagnostics.LATEST_S + 0.1):
        statistics.published(latency_s)
    assert statistics.percentiles_ms() == {"p50": 20.0, "p95": 20.0, "p99": 20.0}
    values = {v.key: v.value for v in status(statistics).values}
    assert (values["frames_out"], values["stamp_implausible"]) == ("5", "3")


def test_a_warning_comes_once_for_each_reason_until_it_is_due_again(monkeypatch):
    now, warnings = 100.0, []
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now)
    statistics = Statistics(warnings.append)
    for reason in ("a", "a", "b", "a"):
        statistics.drop(Rejected(reason, f"because of {reason}"))
    assert warnings == ["frame dropped: because of a", "frame dropped: because of b"]
    now += diagnostics.WARN_EVERY_S
    statistics.drop(Rejected("a", "again"))
    assert warnings[2:] == ["frame dropped: again"]
    assert statistics.dropped == {"a": 4, "b": 1}


def test_only_a_stamp_older_than_the_last_one_is_a_jump():
    warnings = []
    statistics = Statistics(warnings.append)
    for stamp_ns in (5, 5, 6, 4, 5, 6):
        statistics.stamp(stamp_ns)
    assert statistics.stamp_jumps == 1 and len(warnings) == 1


def test_rate_and_level_regard_the_time_since_the_last_message(monkeypatch):
    now = 100.0
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now)
    statistics = Statistics(print)

    def after(frames_in=0, frames_out=0, dropped=0, lost=False) -> tuple[bytes, str, str]:
        nonlocal now
        now += 2.0
        statistics.frames_in += frames_in
        for _ in range(frames_out):
            statistics.published(0.01)
        for _ in range(dropped):
            statistics.drop(Rejected("bad_step", "too short"))
        if lost:
            statistics.lost()
        message = status(statistics)
        values = {v.key: v.value for v in message.values}
        return message.level, message.message, values["rate_hz"]

    ok, warn = DiagnosticStatus.OK, DiagnosticStatus.WARN
    assert after(60, 60) == (ok, "30.0 frames/s", "30.00")
    assert after(10) == (ok, "idle: disabled or no subscriber", "0.00")
    assert after() == (warn, "no images on /image", "0.00")
    assert after(60, 58, dropped=2) == (warn, "frames dropped: bad_step 2", "29.00")
    assert after(10, 10, lost=True) == (warn, "images are lost on the way from the camera", "5.00")
    assert after(2, 2) == (ok, "1.0 frames/s", "1.00")
