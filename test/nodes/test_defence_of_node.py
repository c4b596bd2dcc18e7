"""The defence in the nodes: switched while running, its topics, and the monitor's warning."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from robot import image_message, info_message, write_mask, write_network

DEPTH, SALIENCY, DISAGREEMENT = "depth/image_rect", "saliency", "disagreement"
RANDOM = np.random.default_rng(5).integers(0, 256, (48, 64, 3), np.uint8)
CLEAN = RANDOM * np.array([1, 0, 1], np.uint8)  # nothing green: both say 2 m
QUIET = {"diagnostics_period": 60.0}  # a status starts the next: these tests ask for it themselves
ATTACKED = CLEAN + np.array([0, 51, 0], np.uint8)  # a fifth green: 2.4 m through the mask


@pytest.fixture
def room(tmp_path):
    """A network that sees a wall at 2 m, with a mask; input of 64x48."""
    path = write_network(tmp_path / "room.onnx", size=(64, 48))
    write_mask(path, threshold=0.1, rate=0.01)
    return path


def switch(node, **values):
    """The answer to setting parameters."""
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    return node.set_parameters_atomically(parameters)


def metres(bench, rgb, number):
    msg = bench.answer(DEPTH, image_message(rgb, number * 10**9), info_message(64, 48))
    return np.frombuffer(msg.data, np.float32).reshape(48, 64)


def test_defence_is_switched_while_running_and_off_is_what_it_was(bench, room):
    node = bench.start(room, DEPTH)
    before = metres(bench, ATTACKED, 1)
    assert node.pipeline.defended is None, "who does not ask for the mask does not pay for it"
    for number, (defence, expected) in enumerate(
        {"mask": 2.4, "monitor": 2.4, "off": 2.0}.items(), start=2
    ):
        assert switch(node, defence=defence).successful
        after = metres(bench, ATTACKED, number)
        assert after == pytest.approx(np.full((48, 64), expected), abs=1e-6)
    assert np.array_equal(before.view(np.uint32), after.view(np.uint32))


def test_saliency_is_the_mask_of_this_image_in_shades_of_grey(bench, room):
    bench.start(room, SALIENCY, defence="mask")
    msg = bench.answer(SALIENCY, image_message(RANDOM, 7 * 10**9, "front"), info_message(64, 48))
    assert (msg.encoding, msg.width, msg.height, msg.step) == ("mono8", 64, 48, 64)
    assert (msg.header.frame_id, msg.header.stamp.sec) == ("front", 7)
    assert np.array_equal(np.frombuffer(msg.data, np.uint8).reshape(48, 64), RANDOM[..., 0])


def test_who_listens_to_saliency_alone_starts_nothing_without_a_defence(bench, room):
    node = bench.start(room, SALIENCY, DISAGREEMENT)
    bench.show(image_message(CLEAN), info_message(64, 48))
    assert (node.statistics.frames_idle, node.statistics.frames_out) == (1, 0)
    assert switch(node, defence="monitor").successful
    bench.show(image_message(CLEAN, 2 * 10**9), info_message(64, 48))
    bench.until(lambda: bench.heard[SALIENCY] and bench.heard[DISAGREEMENT])
    assert node.statistics.frames_out == 1


@pytest.mark.parametrize("rgb", [CLEAN, ATTACKED])
def test_disagreement_is_the_logarithm_of_how_much_the_two_depths_differ(bench, room, rgb):
    bench.start(room, DISAGREEMENT, defence="monitor")
    bench.show(image_message(rgb), info_message(64, 48))
    bench.until(lambda: bench.heard[DISAGREEMENT])
    expected = np.log(1 + rgb[0, 0, 1] / 255)
    assert bench.heard[DISAGREEMENT][0].data == pytest.approx(expected, abs=1e-6)


def told(bench, node, images):
    """The monitor's next status of these images alone, and its values."""
    node._frames.monitor._since.clear()
    for i, rgb in enumerate(images):
        bench.show(image_message(rgb, (i + 1) * 10**9), info_message(64, 48))
    status = next(s for s in node.statuses() if s.name.endswith(": monitor"))
    return status, {v.key: v.value for v in status.values}


def test_monitor_warns_of_attacked_frames_and_not_of_clean_ones(bench, room):
    node = bench.start(room, DEPTH, defence="monitor", **QUIET)
    status, values = told(bench, node, [CLEAN] * 3)
    assert (status.level, float(values["disagreement"])) == (DiagnosticStatus.OK, 0.0)
    status, values = told(bench, node, [ATTACKED, ATTACKED, CLEAN])
    assert status.level == DiagnosticStatus.WARN
    assert "disagreement 0.182 is above 0.100 (1 % of clean frames are above it)" in status.message
    assert float(values["disagreement"]) == pytest.approx(np.log(1.2), rel=1e-3)
    assert (values["frames"], values["alarms"], values["false_alarm_rate"]) == ("6", "2", "0.01")
    assert values["mask"] == "room-mask.onnx"


def test_one_frame_in_many_counts_as_alarm_and_is_no_warning(bench, room):
    node = bench.start(room, DEPTH, defence="monitor", **QUIET)
    status, values = told(bench, node, [CLEAN, ATTACKED, CLEAN])
    assert (status.level, values["alarms"]) == (DiagnosticStatus.OK, "1")


def test_threshold_may_be_set_while_running_and_then_no_rate_is_claimed(bench, room):
    node = bench.start(room, DEPTH, defence="monitor", **QUIET)
    assert switch(node, alarm_threshold=0.2).successful
    status, values = told(bench, node, [ATTACKED])
    assert status.level == DiagnosticStatus.OK
    assert (values["threshold"], values["false_alarm_rate"]) == ("0.2", "unknown")
    assert "clean frames" not in status.message


def test_mask_without_a_threshold_asks_for_one(bench, room):
    write_mask(room)
    node = bench.start(room, DEPTH, defence="monitor", **QUIET)
    status, _ = told(bench, node, [ATTACKED])
    assert status.level == DiagnosticStatus.WARN and "set alarm_threshold" in status.message


def test_diagnostics_carry_the_monitor_only_while_it_runs(bench, room):
    heard = []
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    node = bench.start(room, DEPTH, diagnostics_period=0.1)

    def names():
        return {s.name.split(": ")[1] for s in heard[-1].status} if heard else set()

    bench.until(lambda: names() == {"frames"})
    assert switch(node, defence="monitor").successful
    bench.until(lambda: names() == {"frames", "monitor"})
    assert {v.key: v.value for v in heard[-1].status[0].values}["defence"] == "monitor"


@pytest.mark.parametrize("kind", ["none", "foreign"])
def test_switch_that_finds_no_mask_is_refused_with_the_reason_and_the_node_goes_on(
    bench, room, kind
):
    mask = room.with_name("room-mask.onnx")
    if kind == "none":
        mask.unlink()
        reason = "mask: there is none for room.onnx (room-mask.onnx is not beside it)"
    else:
        other = write_network(room.with_name("other.onnx"), metres=3.0)
        mask.write_bytes(write_mask(other).read_bytes())
        reason = "mask: room-mask.onnx belongs to stub of SHA-256"
    node = bench.start(room, DEPTH)
    before = node.settings
    result = switch(node, defence="mask", max_depth=7.0)
    assert not result.successful and reason in result.reason and "\n" not in result.reason
    assert node.settings is node.pipeline.settings is before
    assert node.get_parameter("defence").value == "off"
    assert (metres(bench, ATTACKED, 1) == 2.0).all()


def test_defence_without_a_mask_fails_configure_with_the_reason(bench, room, capfd):
    room.with_name("room-mask.onnx").unlink()
    assert not bench.make(model=str(room), defence="mask").start()
    assert "mask: there is none for room.onnx" in capfd.readouterr().err


@pytest.mark.parametrize("given", ["off", "false", '"off"'])
def test_off_may_be_given_as_yaml_reads_it(bench, given):
    node = bench.make(["-p", f"defence:={given}"])
    assert (node.settings.defence, node._problem) == ("off", "")


def test_off_while_running_may_be_false_which_the_command_line_makes_of_it(bench, room):
    node = bench.start(room, DEPTH, defence="mask")
    if not hasattr(node, "add_pre_set_parameters_callback"):
        pytest.skip("humble has no callback that could change a parameter's type")
    assert switch(node, defence=False).successful
    assert node.settings.defence == node.get_parameter("defence").value == "off"
    assert not switch(node, defence=True).successful


def test_completion_node_has_the_same_defence(completion_bench, echo):
    """Through the mask it says 3 m; without it and without a scan, 9 m."""
    write_mask(echo, metres=3.0, threshold=0.1)
    bench = completion_bench
    node = bench.start(
        echo,
        DEPTH,
        SALIENCY,
        on_missing_scan="monocular",
        laser_to_camera="0 0 0 0 0 0 1",
        **QUIET,
    )
    assert (metres(bench, CLEAN, 1) == 9.0).all() and not bench.heard[SALIENCY]
    assert switch(node, defence="monitor").successful
    assert (metres(bench, CLEAN, 2) == 3.0).all()
    bench.until(lambda: bench.heard[SALIENCY])
    status = next(s for s in node.statuses() if s.name.endswith(": monitor"))
    values = {v.key: v.value for v in status.values}
    assert float(values["disagreement"]) == pytest.approx(np.log(3), rel=1e-3)
