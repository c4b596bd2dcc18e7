"""The completion node over real DDS: the network's answer proves which points it was given."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from robot import (
    cloud_message,
    image_message,
    info_message,
    scan_message,
    stamped,
    write_completion,
)
from sensor_msgs.msg import PointCloud2

from mde_ros.config import PipelineSettings
from mde_ros.frame import Frame
from mde_ros.nodes.convert import camera_from_info
from mde_ros.pipeline import DepthPipeline

RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
DEPTH, UNCERTAINTY = "depth/image_rect", "uncertainty"
# 0.21 m below the camera and 0.01 m to its right, looking the same way.
BELOW = "0.01 0.21 0 0.5 -0.5 0.5 0.5"
MS = 1_000_000


def info():
    return info_message(64, 48, focal=50.0)


def metres(msg) -> np.ndarray:
    return np.frombuffer(msg.data, np.float32).reshape(msg.height, msg.width)


def planted(msg) -> dict[tuple[int, int], float]:
    """(row, column) → metres of all that is not the 9 m of the network without points."""
    depth = metres(msg)
    return {(int(r), int(c)): float(depth[r, c]) for r, c in np.argwhere(depth != 9)}


# What goes in


def test_the_rays_of_a_scan_reach_the_network_at_their_pixels_in_metres(completion_bench, echo):
    bench = completion_bench
    bench.start(echo, DEPTH, laser_to_camera=BELOW)
    bench.sweep(scan_message([2, np.nan, 1, np.inf, 4], first=-0.5, step=0.25))
    got = planted(bench.answer(DEPTH, image_message(RGB), info()))
    # z = r cos a, u = 31.5 + 50 (0.01 - r sin a) / z, v = 23.5 + 50 * 0.21 / z
    assert got == pytest.approx({(29, 59): 1.755165, (34, 32): 1.0, (26, 4): 3.510330}, abs=1e-5)


def test_a_cloud_of_two_lines_goes_the_same_way(completion_bench, echo):
    bench = completion_bench
    bench.start(echo, DEPTH, scan=PointCloud2, laser_to_camera=BELOW)
    bench.sweep(cloud_message([[2, 0, 0], [2, 0, 0.4], [4, 1, 0], [-1, 0, 0], [np.nan, 0, 0]]))
    got = planted(bench.answer(DEPTH, image_message(RGB), info()))
    # Level and 0.4 m higher, which is 0.19 m above the camera; 1 m to the left; behind; none.
    assert got == {(29, 32): 2.0, (19, 32): 2.0, (26, 19): 4.0}


def test_the_node_equals_the_pipeline_bit_for_bit_behind_a_lens(completion_bench, tmp_path):
    bench = completion_bench
    network = write_completion(tmp_path / "small.onnx", size=(36, 28))
    bench.start(network, DEPTH, UNCERTAINTY, laser_to_camera=BELOW)
    lens = info_message(64, 48, focal=50.0, D=[0.1, 0.01, 0.0, 0.0, 0.0])
    bench.sweep(scan_message(np.full(21, 2.0), first=-0.5, step=0.05))
    depth = metres(bench.answer(DEPTH, image_message(RGB), lens))
    angles = -0.5 + np.float32(0.05) * np.arange(21)
    points = np.stack([0.01 - 2 * np.sin(angles), np.full(21, 0.21), 2 * np.cos(angles)], 1)
    pipeline = DepthPipeline(PipelineSettings(model=str(network)))
    frame = Frame(RGB, camera_from_info(lens), points.astype(np.float32))
    expected = pipeline(frame)
    valid = expected.depth > 0
    assert np.array_equal(np.isnan(depth), ~valid)
    assert depth[valid] == pytest.approx(expected.depth[valid], rel=1e-6)
    bench.until(lambda: bench.heard[UNCERTAINTY])
    uncertainty = metres(bench.heard[UNCERTAINTY][0])
    assert uncertainty[valid] == pytest.approx(expected.uncertainty[valid], rel=1e-6)
    assert np.isnan(uncertainty[~valid]).all() and not valid.all()


def test_uncertainty_goes_out_in_metres_with_the_stamp_of_its_image(completion_bench, echo):
    bench = completion_bench
    bench.start(echo, UNCERTAINTY, laser_to_camera=BELOW, max_depth=5.0)
    bench.sweep(scan_message([2]))
    image = image_message(RGB, frame_id="front")
    msg = bench.answer(UNCERTAINTY, image, info())
    assert (msg.encoding, msg.header) == ("32FC1", image.header)
    values = metres(msg)
    assert values[29, 32] == 0.25  # an eighth of 2 m
    values[29, 32] = np.nan
    assert np.isnan(values).all()  # 9 m are out of range


def test_scans_are_moved_with_the_velocity_of_the_odometry(completion_bench, echo):
    bench = completion_bench
    odom = bench.publisher(Odometry, "odom")
    pose = {"laser_to_camera": BELOW, "laser_to_base": "0 0 0 0 0 0 1"}
    node = bench.start(echo, DEPTH, deskew=True, **pose)
    bench.until(odom.get_subscription_count)
    msg = Odometry(child_frame_id="base")
    msg.twist.twist.linear.x = 5.0
    odom.publish(stamped(msg, 1_000 * MS, "odom"))
    bench.until(lambda: node.scans._odometry is not None)
    bench.sweep(scan_message([3], stamp_ns=900 * MS))
    got = planted(bench.answer(DEPTH, image_message(RGB), info()))
    assert got == pytest.approx({(28, 32): 2.5})


# Without


@pytest.mark.parametrize(
    ("policy", "out", "dropped", "monocular"),
    [("drop", 0, {"no_scan": 1}, {}), ("monocular", 1, {}, {"no_scan": 1})],
)
def test_an_image_without_a_scan_is_dropped_or_monocular(
    completion_bench, echo, policy, out, dropped, monocular
):
    bench = completion_bench
    node = bench.start(echo, DEPTH, laser_to_camera=BELOW, on_missing_scan=policy)
    bench.show(image_message(RGB), info())
    assert (node.statistics.frames_out, node.statistics.dropped) == (out, dropped)
    assert node.scan_statistics.frames_monocular == monocular
    if out:
        bench.until(lambda: bench.heard[DEPTH])
        assert planted(bench.heard[DEPTH][0]) == {}
    bench.sweep(scan_message([2], stamp_ns=2_000 * MS))
    assert planted(bench.answer(DEPTH, image_message(RGB, 2_000 * MS))) == {(29, 32): 2.0}


@pytest.mark.parametrize("policy", ["drop", "monocular"])
def test_without_a_pose_of_the_laser_the_node_says_so_and_publishes_nothing(
    completion_bench, echo, policy, capfd
):
    bench = completion_bench
    heard = []
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    node = bench.start(echo, DEPTH, on_missing_scan=policy, diagnostics_period=0.1)
    bench.sweep(scan_message([2]))
    for stamp in range(3):
        bench.show(image_message(RGB, 1_000 * MS + stamp), info())
    assert node.statistics.dropped == {"no_transform_source": 3} and not bench.heard[DEPTH]
    log = capfd.readouterr().err
    assert log.count("tf2_ros cannot be imported and the parameter laser_to_camera is empty") == 1
    seen = len(heard)
    bench.until(lambda: len(heard) > seen)
    frames, scans = ({v.key: v.value for v in s.values} for s in heard[-1].status)
    assert frames["dropped.no_transform_source"] == "3"
    assert scans["laser_pose"].startswith("none")


def test_a_live_change_of_age_and_policy_counts_for_the_next_image(completion_bench, echo):
    bench = completion_bench
    node = bench.start(echo, DEPTH, laser_to_camera=BELOW)
    bench.sweep(scan_message([2]))
    bench.show(image_message(RGB, 1_500 * MS), info())
    assert node.statistics.dropped == {"scan_age": 1}
    assert node.set_parameters([Parameter("max_scan_age", value=0.6)])[0].successful
    assert planted(bench.answer(DEPTH, image_message(RGB, 1_500 * MS + 1))) == {(29, 32): 2.0}
    assert node.set_parameters([Parameter("on_missing_scan", value="monocular")])[0].successful
    assert planted(bench.answer(DEPTH, image_message(RGB, 1_700 * MS))) == {}


# How well it agrees


@pytest.mark.parametrize(
    ("gain", "level", "words"),
    [(1.05, DiagnosticStatus.OK, "within 5 %"), (1.25, DiagnosticStatus.WARN, "25 % of the")],
)
def test_diagnostics_tell_how_far_depth_is_from_the_scan(
    completion_bench, tmp_path, gain, level, words
):
    bench, heard = completion_bench, []
    network = write_completion(tmp_path / "gain.onnx", gain)
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    bench.start(network, DEPTH, laser_to_camera=BELOW, diagnostics_period=0.3)

    def status() -> DiagnosticStatus | None:
        told = [m.status[1] for m in heard if "scale" in {v.key for v in m.status[1].values}]
        return told[-1] if told else None

    bench.sweep(scan_message([2, 2, 2], first=-0.1))
    bench.answer(DEPTH, image_message(RGB, 1_050 * MS), info())
    bench.until(status)
    values = {v.key: v.value for v in status().values}
    assert status().name == "/completion_node: scans"
    assert status().level == level and words in status().message
    assert float(values["scale"]) == pytest.approx(gain, abs=1e-3)
    # The two outer rays are 2 cos 0.1 m = 1.99 m away, so that is the median.
    assert float(values["disagreement_m"]) == pytest.approx((gain - 1) * 1.99, abs=2e-3)
    assert values["scan_age_ms"] == "50.0" and values["points"] == "3"
    assert (values["scan"], values["laser_pose"]) == ("/scan", "parameter laser_to_camera")


# Models and parameters


def test_a_model_without_points_is_refused_and_nothing_stays(completion_bench, wall, capfd):
    node = completion_bench.make(model=str(wall))
    before = [len(list(x)) for x in (node.publishers, node.subscriptions, node.services)]
    assert not node.start()
    assert before == [len(list(x)) for x in (node.publishers, node.subscriptions, node.services)]
    log = capfd.readouterr().err
    assert "cannot configure: model: expected one that takes LiDAR points" in log
    assert "wall.onnx does not; use model:=completion, or the depth node" in log


def test_a_wrong_pose_fails_configure_with_the_reason(completion_bench, echo, capfd):
    node = completion_bench.make(["-p", f"model:={echo}", "-p", "laser_to_camera:='1 2 3'"])
    assert not node.start()
    reason = "cannot configure: parameters: laser_to_camera: expected seven numbers"
    assert reason in capfd.readouterr().err


def test_in_the_depth_node_a_completion_model_is_monocular(bench, echo):
    bench.start(echo, DEPTH, UNCERTAINTY)
    assert planted(bench.answer(DEPTH, image_message(RGB), info())) == {}
    bench.until(lambda: bench.heard[UNCERTAINTY])
    assert (metres(bench.heard[UNCERTAINTY][0]) == 9 / 8).all()


def test_uncertainty_is_a_topic_only_of_networks_that_tell_it(bench, wall):
    node = bench.start(wall)
    assert "/uncertainty" not in [p.topic_name for p in node.publishers]


def test_after_deactivating_nothing_is_heard_and_nothing_of_before_is_used(completion_bench, echo):
    bench = completion_bench
    node = bench.start(echo, DEPTH, laser_to_camera=BELOW)
    bench.sweep(scan_message([2]))
    node.trigger_deactivate()
    assert "/scan" not in [s.topic_name for s in node.subscriptions]
    node.trigger_activate()
    bench.wire(node, DEPTH)
    bench.show(image_message(RGB), info())
    assert node.statistics.dropped == {"no_scan": 1}
