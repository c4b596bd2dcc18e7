"""The depth node over real DDS: values, stamps, QoS, bad input, life cycle. One process."""

from array import array
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from robot import image_message, info_message, write_network
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from mde_ros.config import PipelineSettings
from mde_ros.frame import Frame
from mde_ros.nodes import camera_stream, depth_node
from mde_ros.nodes.convert import camera_from_info
from mde_ros.nodes.depth_node import UnsupportedEventTypeError
from mde_ros.nodes.outputs import OUTPUTS
from mde_ros.pipeline import DepthPipeline

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (48, 64, 3), np.uint8)
TOPICS = DEPTH, INFO, POINTS, COLOUR = tuple(OUTPUTS)[:4]  # of a network without uncertainty


def metres(msg: Image) -> np.ndarray:
    return np.frombuffer(msg.data, np.float32).reshape(msg.height, msg.width)


# What goes out


def test_a_wall_at_two_metres_arrives_as_a_plane_of_points(bench, wall):
    bench.start(wall, POINTS, point_colour=False)
    cloud = bench.answer(POINTS, image_message(RGB), info_message(64, 48, focal=50.0))
    points = np.frombuffer(cloud.data, np.float32).reshape(48, 64, 4)
    assert np.array_equal(points[..., 2], np.full((48, 64), 2, np.float32))
    # fx = fy = 50 px and the principal point is (31.5, 23.5), so a pixel is 2/50 = 4 cm wide.
    assert np.allclose(points[0, 0, :2], (-31.5 * 0.04, -23.5 * 0.04), atol=1e-6)
    assert np.allclose(points[47, 63, :2], (31.5 * 0.04, 23.5 * 0.04), atol=1e-6)
    assert np.allclose(points[10, 40, :2], (8.5 * 0.04, -13.5 * 0.04), atol=1e-6)


def test_depth_is_that_of_its_own_pixel_and_nan_out_of_range(bench, ramp):
    bench.start(ramp, DEPTH, min_depth=1.0, max_depth=20.0)
    depth = metres(bench.answer(DEPTH, image_message(RGB), info_message(64, 48)))
    planted = RGB[..., 0] * np.float32(0.1)
    valid = (planted >= 1.0) & (planted <= 20.0)
    assert np.array_equal(depth[valid], planted[valid])
    assert np.isnan(depth[~valid]).all() and 0 < valid.sum() < valid.size


def test_16uc1_is_the_depth_in_millimetres_and_zero_for_none(bench, ramp):
    bench.start(ramp, DEPTH, depth_encoding="16UC1", max_depth=20.0)
    msg = bench.answer(DEPTH, image_message(RGB), info_message(64, 48))
    assert (msg.encoding, msg.step, len(msg.data)) == ("16UC1", 128, 128 * 48)
    planted = RGB[..., 0].astype(int) * 100
    expected = np.where((planted >= 100) & (planted <= 20000), planted, 0)
    assert np.array_equal(np.frombuffer(msg.data, np.uint16).reshape(48, 64), expected)


def test_every_output_has_the_stamp_and_frame_of_its_image(bench, wall):
    bench.start(wall, *TOPICS)
    for stamp_ns in (5_000_000_007, 6_123_456_789):
        image = image_message(RGB, stamp_ns, frame_id="front_optical")
        for topic in TOPICS:
            assert bench.answer(topic, image, info_message(64, 48)).header == image.header


def test_camera_info_of_the_depth_has_k_and_p_and_no_distortion(bench, wall):
    bench.start(wall, INFO, DEPTH)
    lens = info_message(64, 48, focal=60.0, D=[-0.3, 0.1, 0.001, 0.002, 0.0])
    info = bench.answer(INFO, image_message(RGB), lens)
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert list(info.k) == [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    assert list(info.p) == [60.0, 0.0, 31.5, 0.0, 0.0, 60.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert list(info.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert list(info.d) == [0.0] * 5


def test_depth_and_colours_of_a_distorted_lens_are_those_of_the_undistorted_image(bench, ramp):
    bench.start(ramp, DEPTH, POINTS)
    lens = info_message(64, 48, focal=60.0, D=[-0.3, 0.1, 0.0, 0.0, 0.0])
    cloud = bench.answer(POINTS, image_message(RGB), lens)
    K, D = np.array(lens.k).reshape(3, 3), np.array(lens.d)
    straight = cv2.undistort(RGB, K, D)
    colours = np.frombuffer(cloud.data, np.uint8).reshape(48, 64, 32)[..., 18:15:-1]
    inside = np.s_[8:-8, 8:-8]
    assert np.abs(colours[inside].astype(int) - straight[inside]).max() <= 8  # fixed-point maps
    bench.until(lambda: bench.heard[DEPTH])
    red = colours[..., 0] * np.float32(0.1)
    expected = np.where(red >= np.float32(0.1), red, np.nan)
    assert np.array_equal(metres(bench.heard[DEPTH][0]), expected, equal_nan=True)


def test_colour_of_points_is_that_of_their_pixels(bench, wall):
    bench.start(wall, POINTS, point_stride=3)
    cloud = bench.answer(POINTS, image_message(RGB), info_message(64, 48))
    assert (cloud.width, cloud.height, cloud.point_step, cloud.is_dense) == (22, 16, 32, False)
    points = np.frombuffer(cloud.data, np.uint8).reshape(16, 22, 32)
    assert np.array_equal(points[..., 16:19], RGB[::3, ::3, ::-1])


def test_node_equals_pipeline_bit_for_bit_when_the_network_is_resized(bench, tmp_path):
    network = write_network(tmp_path / "small.onnx", per_red=0.07, metres=0.5, size=(36, 28))
    bench.start(network, DEPTH)
    lens = info_message(64, 48, D=[0.1, 0.01, 0.0, 0.0, 0.0])
    depth = metres(bench.answer(DEPTH, image_message(RGB), lens))
    pipeline = DepthPipeline(PipelineSettings(model=str(network)))
    expected = pipeline(Frame(RGB, camera_from_info(lens))).depth
    valid = expected > 0  # the lens does not see all corners
    assert np.array_equal(np.isnan(depth), ~valid) and valid.mean() > 0.8
    assert np.array_equal(depth[valid].view(np.uint32), expected[valid].view(np.uint32))


def test_a_compressed_image_gives_the_depth_of_its_pixels(bench, ramp):
    node = bench.make(model=str(ramp), image_transport="compressed", max_depth=26.0)
    assert node.start()
    bench.depth = node
    bench.image = bench.publisher(CompressedImage, "image/compressed")
    bench.listen(DEPTH)
    bench.wire(node, DEPTH)
    png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    msg = CompressedImage(header=image_message(RGB).header, format="png", data=png)
    depth = metres(bench.answer(DEPTH, msg, info_message(64, 48)))
    planted = RGB[..., 0] * np.float32(0.1)
    assert np.array_equal(depth[planted > 0.1], planted[planted > 0.1])


def test_remapping_the_image_moves_its_compressed_topic_too(bench, wall):
    arguments = ["-r", "image:=/cam/image_raw", "-p", "image_transport:=compressed"]
    node = bench.make(["-p", f"model:={wall}", *arguments])
    assert node.start()
    assert "/cam/image_raw/compressed" in [s.topic_name for s in node.subscriptions]


# Who hears whom


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_outputs_have_the_reliability_asked_for_and_hold_one_message(bench, wall, reliability):
    bench.start(wall, publish_reliability=reliability)
    for topic in TOPICS:
        (info,) = bench.node.get_publishers_info_by_topic(topic)
        qos = info.qos_profile
        assert qos.reliability == ReliabilityPolicy[reliability.upper()]
        assert qos.durability == DurabilityPolicy.VOLATILE
    for publisher in bench.depth.outputs._publishers.values():
        assert publisher.qos_profile.depth == 1
        assert publisher.qos_profile.history == HistoryPolicy.KEEP_LAST


def test_the_camera_is_subscribed_best_effort_and_one_deep(bench, wall):
    node = bench.start(wall)
    ours = {s.topic_name: s.qos_profile for s in node.subscriptions}
    for topic in ("/image", "/camera_info"):
        assert ours[topic].reliability == ReliabilityPolicy.BEST_EFFORT
        assert (ours[topic].history, ours[topic].depth) == (HistoryPolicy.KEEP_LAST, 1)


@pytest.mark.parametrize("camera", ["reliable", "best_effort"])
@pytest.mark.parametrize("listener", ["reliable", "best_effort"])
def test_cameras_and_listeners_of_either_reliability_are_served(bench, wall, camera, listener):
    bench.image = bench.publisher(Image, "image", camera)
    bench.info = bench.publisher(CameraInfo, "camera_info", camera)
    bench.listen(DEPTH, reliability=listener)
    bench.depth = bench.make(model=str(wall))
    assert bench.depth.start()
    bench.wire(bench.depth, DEPTH)
    assert metres(bench.answer(DEPTH, image_message(RGB), info_message(64, 48)))[0, 0] == 2.0


# What nobody wants


def test_when_nobody_listens_nothing_is_computed(bench, wall):
    node = bench.start(wall)
    node.pipeline.runtime = None  # would be called, and fail
    for stamp in range(3):
        bench.show(image_message(RGB, stamp), info_message(64, 48))
    s = node.statistics
    assert (s.frames_in, s.frames_idle, s.frames_out, s.dropped) == (3, 3, 0, {})


@pytest.mark.parametrize("topic", TOPICS)
def test_only_the_message_somebody_listens_to_is_made(bench, wall, topic, monkeypatch):
    made = []
    for name, (kind, fill) in OUTPUTS.items():

        def spy(*args, name=name, fill=fill):
            made.append(name)
            return fill(*args)

        monkeypatch.setitem(OUTPUTS, name, (kind, spy))
    bench.start(wall, topic)
    bench.answer(topic, image_message(RGB), info_message(64, 48))
    assert made == [topic]


def test_the_enable_service_switches_processing_off_and_on(bench, wall):
    node = bench.start(wall, DEPTH)
    client = bench.node.create_client(SetBool, "/depth_node/enable")
    bench.until(client.service_is_ready)
    for wanted, disabled, out in ((False, 1, 0), (True, 1, 1)):
        answer = bench.ask(client, SetBool.Request(data=wanted))
        assert answer.success
        assert node.get_parameter("enabled").value is wanted
        bench.show(image_message(RGB), info_message(64, 48))
        assert (node.statistics.frames_disabled, node.statistics.frames_out) == (disabled, out)


# What cannot be used


def broken(**changes) -> Image:
    msg = image_message(RGB)
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def zeros() -> CameraInfo:
    msg = info_message(64, 48)
    msg.k, msg.p = [0.0] * 9, [0.0] * 12
    return msg


@pytest.mark.parametrize(
    ("image", "info", "reason", "words"),
    [
        (broken(encoding="cmyk8"), info_message(64, 48), "unknown_encoding", ["rgb8", "'cmyk8'"]),
        (broken(step=7), info_message(64, 48), "bad_step", ["192", "7"]),
        (broken(data=array("B", bytes(9))), info_message(64, 48), "bad_length", ["9216", "9 "]),
        (broken(width=0), info_message(64, 48), "zero_size", ["0x48"]),
        (broken(), info_message(32, 24), "camera_info_size", ["64x48", "32x24"]),
        (broken(), zeros(), "camera_info_invalid", ["fx=0.0", "calibrated"]),
    ],
)
def test_what_does_not_fit_is_dropped_counted_and_named_and_the_next_frame_works(
    bench, wall, capfd, image, info, reason, words
):
    node = bench.start(wall, DEPTH)
    for stamp in (1, 2, 3):
        image.header.stamp.sec = stamp
        bench.show(image, info)
    assert node.statistics.dropped == {reason: 3}
    log = [line for line in capfd.readouterr().err.splitlines() if "frame dropped" in line]
    assert len(log) == 1, "throttled to one warning"
    assert all(word in log[0] + " " for word in words)
    depth = bench.answer(DEPTH, image_message(RGB, 4_000_000_000), info_message(64, 48))
    assert metres(depth)[0, 0] == 2.0


def test_without_camera_info_frames_are_dropped_and_the_topic_is_named(bench, wall, capfd):
    node = bench.start(wall, DEPTH)
    for stamp in range(4):
        bench.show(image_message(RGB, stamp))
    assert node.statistics.dropped == {"no_camera_info": 3}  # the last one still waits
    assert node.trigger_deactivate() and node.statistics.dropped == {"no_camera_info": 4}
    log = capfd.readouterr().err
    assert "/camera_info" in log and "published along with the images" in log


def test_an_image_that_comes_before_its_camera_info_is_not_lost(bench, wall):
    node = bench.start(wall, DEPTH)
    bench.show(image_message(RGB, 7))
    assert not bench.heard[DEPTH]
    bench.info.publish(info_message(64, 48, stamp_ns=7))
    bench.until(lambda: bench.heard[DEPTH])
    assert node.statistics.frames_out == 1 and not node.statistics.dropped


@pytest.fixture
def decoded(monkeypatch):
    """The stamps of the images that were decoded."""
    stamps = []

    def spy(msg):
        stamps.append(msg.header.stamp.nanosec)
        return rgb_from(msg)

    rgb_from = camera_stream.RGB_FROM[Image]
    monkeypatch.setitem(camera_stream.RGB_FROM, Image, spy)
    return stamps


def test_an_image_is_decoded_only_when_there_is_a_camera_and_only_once(bench, wall, decoded):
    bench.start(wall, DEPTH)
    for stamp in (1, 2):
        bench.show(image_message(RGB, stamp))
    assert decoded == []
    bench.info.publish(info_message(64, 48, stamp_ns=2))
    bench.until(lambda: len(bench.heard[DEPTH]) == 1)
    assert decoded == [2]
    bench.show(image_message(RGB[:24, :32], 3))  # waits: the camera is that of another size
    bench.info.publish(info_message(32, 24, stamp_ns=3))
    bench.until(lambda: len(bench.heard[DEPTH]) == 2)
    assert decoded == [2, 3]


def test_an_image_does_not_take_the_camera_info_of_another_stamp_for_its_own(bench, wall):
    node = bench.start(wall, DEPTH)
    bench.show(image_message(RGB, 7))
    bench.info.publish(info_message(64, 48, stamp_ns=8))
    bench.show(image_message(RGB, 8))
    bench.until(lambda: bench.heard[DEPTH])
    assert [m.header.stamp.nanosec for m in bench.heard[DEPTH]] == [8]
    assert node.statistics.dropped == {"no_camera_info": 1}


@pytest.mark.parametrize("info_first", [True, False])
def test_a_new_image_size_in_mid_stream_is_followed_without_a_loss(bench, wall, info_first):
    node = bench.start(wall, *TOPICS)
    for stamp, (height, width) in enumerate([(48, 64), (48, 64), (24, 32), (24, 32), (30, 50)]):
        image = image_message(RGB[:height, :width], stamp)
        info = info_message(width, height, stamp_ns=stamp)
        if info_first:
            bench.show(image, info)
        else:
            bench.show(image)
            bench.info.publish(info)
        for topic in TOPICS:
            bench.until(lambda topic=topic, n=stamp + 1: len(bench.heard[topic]) == n)
            assert (bench.heard[topic][-1].width, bench.heard[topic][-1].height) == (width, height)
    assert not node.statistics.dropped


def test_a_stamp_that_jumps_back_is_told_and_processing_goes_on(bench, wall, capfd):
    node = bench.start(wall, DEPTH)
    for seconds in (10, 11, 2, 3):
        msg = bench.answer(DEPTH, image_message(RGB, seconds * 10**9), info_message(64, 48))
        assert msg.header.stamp.sec == seconds
    assert (node.statistics.stamp_jumps, node.statistics.frames_out) == (1, 4)
    assert "back by 9.000 s" in capfd.readouterr().err


def test_a_frame_on_which_inference_fails_is_dropped_and_the_next_one_works(bench, wall):
    node = bench.start(wall, DEPTH)
    good = node.pipeline.runtime

    def fail(*_):
        raise RuntimeError("out of memory")

    fail.spec = good.spec
    node.pipeline.runtime = fail
    bench.show(image_message(RGB, 1), info_message(64, 48))
    assert node.statistics.dropped == {"inference_failed": 1}
    node.pipeline.runtime = good
    bench.answer(DEPTH, image_message(RGB, 2), info_message(64, 48))


def test_a_lens_model_that_is_unknown_is_dropped_not_guessed(bench, wall):
    node = bench.start(wall, DEPTH)
    bench.show(image_message(RGB), info_message(64, 48, D=[0.1] * 5, model="mei"))
    assert node.statistics.dropped == {"camera_info_invalid": 1}


# Weights that cannot be used


def truncated(folder: Path) -> Path:
    path = write_network(folder / "half.onnx")
    path.write_bytes(path.read_bytes()[:100])
    return path


def foreign(folder: Path) -> Path:
    path = folder / "foreign.onnx"
    model = onnx.load(write_network(path))
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def headless(folder: Path) -> Path:
    path = folder / "short.safetensors"
    path.write_bytes((10**6).to_bytes(8, "little") + b"{}")
    return path


def pickled(folder: Path) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(b"\x80\x04")
    return path


def misfit(folder: Path) -> Path:
    path = folder / "narrow.onnx"
    model = onnx.load(write_network(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 10
    onnx.save(model, path)
    return path


def relative(folder: Path) -> Path:
    path = folder / "relative.onnx"
    model = onnx.load(write_network(path))
    onnx.helper.set_model_props(model, {"mde_ros": '{"metric": false}'})
    onnx.save(model, path)
    return path


def diverged(folder: Path) -> Path:
    return write_network(folder / "diverged.onnx", metres=float("nan"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (diverged, ["expected depth in metres", "diverged.onnx answers NaN or inf only"]),
        (relative, ["expected metric depth", "relative.onnx is relative", "mde scale"]),
        (misfit, ["narrow.onnx", "inference failed", "Expected: 10"]),
        (truncated, ["half.onnx", "not a readable ONNX"]),
        (foreign, ["foreign.onnx", "foreign.yaml", "focal_px"]),
        (headless, ["short.safetensors", "not a readable safetensors"]),
        (pickled, ["weights.pth", ".safetensors"]),
    ],
)
def test_weights_that_cannot_be_used_fail_configure_and_nothing_stays(
    bench, tmp_path, capfd, make, words
):
    node = bench.make(model=str(make(tmp_path)))
    before = [len(list(x)) for x in (node.publishers, node.subscriptions, node.services)]
    assert not node.start()
    assert before == [len(list(x)) for x in (node.publishers, node.subscriptions, node.services)]
    log = capfd.readouterr().err
    assert "cannot configure" in log and all(word in log for word in words)


# Life cycle and time


def test_by_hand_the_node_goes_through_its_states_and_leaves_nothing_behind(bench, wall):
    node = bench.make(model=str(wall))
    change = bench.node.create_client(ChangeState, "/depth_node/change_state")
    state = bench.node.create_client(GetState, "/depth_node/get_state")
    bench.until(lambda: change.service_is_ready() and state.service_is_ready())

    def topics() -> set[str]:
        owned = {e.topic_name for e in (*node.publishers, *node.subscriptions)}
        return owned & {"/image", "/camera_info", "/depth/image_rect", "/points", "/diagnostics"}

    published = {"/depth/image_rect", "/points", "/diagnostics"}
    steps = [
        (Transition.TRANSITION_CONFIGURE, "inactive", published),
        (Transition.TRANSITION_ACTIVATE, "active", published | {"/image", "/camera_info"}),
        (Transition.TRANSITION_DEACTIVATE, "inactive", published),
        (Transition.TRANSITION_ACTIVATE, "active", published | {"/image", "/camera_info"}),
        (Transition.TRANSITION_DEACTIVATE, "inactive", published),
        (Transition.TRANSITION_CLEANUP, "unconfigured", set()),
        (Transition.TRANSITION_CONFIGURE, "inactive", published),
        (Transition.TRANSITION_INACTIVE_SHUTDOWN, "finalized", set()),
    ]
    assert topics() == set()
    for transition, label, expected in steps:
        request = ChangeState.Request()
        request.transition.id = transition
        assert bench.ask(change, request).success
        assert bench.ask(state, GetState.Request()).current_state.label == label
        assert topics() == expected


def test_a_node_that_cannot_activate_says_why_and_can_try_again(bench, wall, capfd, monkeypatch):
    node = bench.depth = bench.make(model=str(wall))
    before = len(list(node.subscriptions))
    with monkeypatch.context() as patch:

        def fail(*_, **__):
            raise RuntimeError("no more timers")

        patch.setattr(node, "create_timer", fail)
        assert not node.start()
    assert "cannot activate: no more timers" in capfd.readouterr().err
    assert len(list(node.subscriptions)) == before
    assert node.trigger_activate() == depth_node.DONE
    bench.listen(DEPTH)
    bench.wire(node, DEPTH)
    bench.answer(DEPTH, image_message(RGB), info_message(64, 48))


def test_a_middleware_that_does_not_tell_losses_is_served_all_the_same(bench, wall, monkeypatch):
    create = depth_node.DepthNode.create_subscription

    def without_events(*args, event_callbacks=None, **kwargs):
        if event_callbacks is not None:
            raise UnsupportedEventTypeError("message lost")
        return create(*args, **kwargs)

    monkeypatch.setattr(depth_node.DepthNode, "create_subscription", without_events)
    bench.start(wall, DEPTH)
    bench.answer(DEPTH, image_message(RGB), info_message(64, 48))


def test_after_deactivating_and_activating_again_depth_goes_on(bench, wall):
    node = bench.start(wall, DEPTH)
    bench.answer(DEPTH, image_message(RGB, 1), info_message(64, 48))
    node.trigger_deactivate()
    node.trigger_activate()
    bench.wire(node, DEPTH)
    bench.answer(DEPTH, image_message(RGB, 2), info_message(64, 48))


def test_latency_is_told_in_the_time_of_the_clock_topic(bench, wall):
    node = bench.start(wall, DEPTH, use_sim_time=True)
    clock = bench.node.create_publisher(Clock, "/clock", 1)
    bench.until(lambda: clock.get_subscription_count() >= 1)
    tick = Clock()
    tick.clock.sec, tick.clock.nanosec = 100, 250_000_000
    clock.publish(tick)
    bench.until(lambda: node.get_clock().now().nanoseconds == 100_250_000_000)
    bench.answer(DEPTH, image_message(RGB, 100_000_000_000), info_message(64, 48))
    assert node.statistics.percentiles_ms() == pytest.approx({"p50": 250, "p95": 250, "p99": 250})


# Diagnostics


def test_diagnostics_tell_counts_reasons_latency_and_what_runs_where(bench, wall):
    heard = []
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    node = bench.start(wall, DEPTH, diagnostics_period=0.2)
    now_ns = node.get_clock().now().nanoseconds
    for i in range(3):
        bench.answer(DEPTH, image_message(RGB, now_ns + i), info_message(64, 48))
    bench.show(broken(encoding="cmyk8"), info_message(64, 48))
    seen = len(heard)
    bench.until(lambda: len(heard) > seen)
    (status,) = heard[-1].status
    values = {v.key: v.value for v in status.values}
    assert status.name == "/depth_node: frames"
    assert status.level == DiagnosticStatus.WARN and "unknown_encoding 1" in status.message
    counts = {k: v for k, v in values.items() if k.startswith(("frames", "dropped", "stamp"))}
    assert counts == {
        "frames_in": "4",
        "frames_out": "3",
        "frames_idle": "0",
        "frames_disabled": "0",
        "stamp_implausible": "0",
        "stamp_jumps": "1",  # the broken image is stamped 1 s after the epoch
        "dropped": "1",
        "dropped.unknown_encoding": "1",
    }
    latency = [float(values[f"latency_{p}_ms"]) for p in ("p50", "p95", "p99")]
    assert 0 < latency[0] <= latency[1] <= latency[2] < 20_000
    assert (values["model"], values["runtime"], values["device"]) == ("stub", "onnxruntime", "cpu")
    assert status.hardware_id == "cpu"
    assert values["model_sha256"] == node.pipeline.runtime.sha256


def test_diagnostics_warn_when_no_images_come(bench, wall):
    heard = []
    bench.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    bench.start(wall, diagnostics_period=0.1)
    bench.until(lambda: heard)
    assert heard[0].status[0].level == DiagnosticStatus.WARN
    assert heard[0].status[0].message == "no images on /image"


def test_a_live_change_of_range_and_stride_shows_in_the_next_frame(bench, ramp):
    node = bench.start(ramp, DEPTH, POINTS)
    bench.answer(POINTS, image_message(RGB, 1), info_message(64, 48))
    changes = [Parameter("max_depth", value=5.0), Parameter("point_stride", value=8)]
    assert node.set_parameters_atomically(changes).successful
    cloud = bench.answer(POINTS, image_message(RGB, 2), info_message(64, 48))
    assert (cloud.width, cloud.height) == (8, 6)
    bench.until(lambda: len(bench.heard[DEPTH]) == 2)
    before, after = (np.nanmax(metres(m)) for m in bench.heard[DEPTH])
    assert before > 20 and 4 < after <= 5
