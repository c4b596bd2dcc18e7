"""The depth node as its own process, met over DDS: what a robot sees of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from domain_coordinator import domain_id
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from robot import (
    Robot,
    image_message,
    info_message,
    scan_message,
    stamped,
    write_completion,
    write_network,
)
from sensor_msgs.msg import LaserScan

from mde_ros.config import NodeSettings
from mde_ros.frame import Frame
from mde_ros.isolation import die_with_parent
from mde_ros.nodes.convert import camera_from_info
from mde_ros.nodes.outputs import OUTPUTS, Outputs
from mde_ros.nodes.process import PROFILE_VARIABLES
from mde_ros.pipeline import DepthPipeline

ROOT = Path(__file__).parents[2]
RGB = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
TOPICS = DEPTH, INFO, POINTS, COLOUR = tuple(OUTPUTS)[:4]  # of a network without uncertainty


class Process(Robot):
    """A robot in a domain of its own, whose node runs in another process."""

    def __init__(self, domain: int, log: Path) -> None:
        super().__init__(domain_id=domain)
        self.domain, self.log, self.started = domain, log, []
        self.scan = self.publisher(LaserScan, "scan")

    def start(self, *arguments: str, node: str = "depth_node") -> subprocess.Popen:
        """A node of the package with ROS arguments."""
        command = [sys.executable, "-m", f"mde_ros.nodes.{node}", "--ros-args"]
        return self.run([*command, *arguments])

    def run(self, command: list[str]) -> subprocess.Popen:
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain)}
        with self.log.open("a") as log:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # or it would answer the next test in its domain
            )
        self.started.append(child)
        return child

    def feed(self, condition, info, scan=None) -> None:
        """Show the image, and a scan, at 20 Hz until the condition holds."""
        last = 0.0

        def shown() -> bool:
            nonlocal last
            if time.monotonic() - last > 0.05:
                last = time.monotonic()
                stamp_ns = time.time_ns()
                if scan is not None:
                    self.scan.publish(stamped(scan, stamp_ns, "laser"))
                info.header = image_message(RGB[:1, :1], stamp_ns).header
                self.info.publish(info)
                self.image.publish(image_message(RGB, stamp_ns))
            return condition()

        self.until(shown)

    def close(self) -> None:
        for child in self.started:
            child.terminate()  # a killed one would leave its shared memory behind
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        super().close()


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with domain_id() as domain:
        process = Process(domain, tmp_path / "node.log")
        yield process
        process.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_node_process_says_what_the_pipeline_says_and_ends_cleanly(process, tmp_path, stop):
    network = write_network(tmp_path / "net.onnx", per_red=0.06, metres=0.2, size=(100, 76))
    process.listen(*TOPICS)
    lens = info_message(160, 120, focal=140.0, D=[0.1, -0.02, 0.001, 0.0, 0.0])
    began = time.monotonic()
    child = process.start("-p", "autostart:=true", "-p", f"model:={network}")
    process.feed(lambda: process.heard[DEPTH], lens)
    first_depth_s = time.monotonic() - began
    process.feed(lambda: all(process.heard[topic] for topic in TOPICS), lens)

    settings = NodeSettings(model=str(network))
    pipeline = DepthPipeline(settings)
    camera = camera_from_info(lens)
    frame = Frame(RGB, camera)
    prediction = pipeline(frame)
    depth_m = prediction.depth
    expected = Outputs(camera.undistorted(), settings)
    depth = process.heard[DEPTH][0]
    values = np.frombuffer(depth.data, np.float32).reshape(120, 160)
    assert np.array_equal(np.isnan(values), depth_m == 0)
    assert np.array_equal(values[depth_m > 0].view(np.uint32), depth_m[depth_m > 0].view(np.uint32))
    for topic in TOPICS:
        heard, (_, fill) = process.heard[topic][0], OUTPUTS[topic]
        assert heard == fill(expected, heard.header, prediction, lambda: pipeline.rectify(frame))
        assert heard.header.frame_id == "cam"

    assert first_depth_s < 15, "about 1 s on two quiet cores"
    child.send_signal(stop)
    assert child.wait(20) == 0, process.log.read_text()


def test_the_completion_node_as_a_process_completes_a_scan_and_ends_cleanly(process, tmp_path):
    network = write_completion(tmp_path / "net.onnx", size=(160, 120))
    process.listen(DEPTH)
    pose = "laser_to_camera:=0.01 0.21 0 0.5 -0.5 0.5 0.5"
    parameters = ("autostart:=true", f"model:={network}", pose)
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    child = process.start(*arguments, node="completion_node")
    scan = scan_message([3.0, 4.0], first=-0.1)
    process.feed(lambda: process.heard[DEPTH], info_message(160, 120, focal=140.0), scan)
    depth = np.frombuffer(process.heard[DEPTH][0].data, np.float32).reshape(120, 160)
    # u = 79.5 + 140 (0.01 - r sin a) / z, v = 59.5 + 140 * 0.21 / z with z = r cos a
    assert depth[69, 94] == pytest.approx(3 * np.cos(0.1)) and depth[67, 80] == 4
    assert (depth == 9).sum() == depth.size - 2
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 0, process.log.read_text()


@pytest.mark.parametrize(("interrupted", "code"), [(True, 0), (False, 1)])
def test_a_start_that_a_signal_breaks_off_is_no_failure(process, interrupted, code):
    script = f"""
import os, signal, sys, time, rclpy
from mde_ros.nodes.process import serve

def start(node):
    if {interrupted}:
        os.kill(os.getpid(), signal.SIGINT)
        while rclpy.ok():
            time.sleep(0.01)
    return False  # a transition that could not be published

sys.exit(serve(lambda: rclpy.create_node("starting"), None, start))
"""
    child = process.run([sys.executable, "-c", script])
    assert child.wait(20) == code, process.log.read_text()


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("model:=/nowhere/net.onnx", "model: expected default"),
        ("modle:=net.onnx", "parameters: unknown key 'modle'; valid: alarm_threshold, autostart,"),
        ("threads:=-1", "threads: expected a value in [0, 256], got -1"),
    ],
)
def test_a_node_that_cannot_start_by_itself_says_why_and_exits_with_one(process, parameter, reason):
    child = process.start("-p", "autostart:=true", "-p", parameter)
    assert child.wait(20) == 1
    log = process.log.read_text()
    assert "cannot configure" in log and reason in log


def test_without_autostart_a_node_waits_and_survives_a_forbidden_transition(process, wall):
    child = process.start("-p", f"model:={wall}")
    change = process.node.create_client(ChangeState, "/depth_node/change_state")
    state = process.node.create_client(GetState, "/depth_node/get_state")
    process.until(lambda: change.service_is_ready() and state.service_is_ready())

    def label() -> str:
        future = state.call_async(GetState.Request())
        process.until(future.done)
        return future.result().current_state.label

    assert label() == "unconfigured"
    assert "lifecycle set /depth_node configure" in process.log.read_text()
    forbidden, allowed = ChangeState.Request(), ChangeState.Request()
    forbidden.transition.id = Transition.TRANSITION_ACTIVATE
    allowed.transition.id = Transition.TRANSITION_CONFIGURE
    change.call_async(forbidden)  # to which rclpy raises out of spin and gives no answer
    future = change.call_async(allowed)
    process.until(future.done)
    assert future.result().success and label() == "inactive"
    assert child.poll() is None


def test_the_node_needs_neither_torch_beside_onnxruntime_nor_messages_of_a_lidar(wall):
    code = (
        "import sys, numpy\n"
        "from mde_ros.nodes import depth_node\n"
        "from mde_ros.pipeline import DepthPipeline\n"
        f"DepthPipeline(depth_node.NodeSettings(model={str(wall)!r}))\n"
        "absent = ('torch', 'matplotlib', 'scipy', 'pandas', 'nav_msgs')\n"
        "print([m for m in absent if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


CAMERA_WITHOUT_PROFILE = """
import rclpy
from array import array
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("camera")
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", qos)
large, small = Image(data=array("B", bytes(6_000_000))), Image(data=array("B", bytes(9)))
while True:
    publisher.publish(large)
    publisher.publish(small)  # arrives, and shows the gap before it
    rclpy.spin_once(node, timeout_sec=0.03)
"""


def test_that_images_are_lost_before_they_reach_the_node_is_told(process, wall):
    """An image of 6 MB does not fit the shared memory of 512 KB that is the default."""
    heard: list[dict[str, str]] = []
    process.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda m: heard.append({v.key: v.value for v in m.status[0].values}),
        10,
    )
    options = ("autostart:=true", f"model:={wall}", "diagnostics_period:=0.2")
    process.start(*(word for option in options for word in ("-p", option)))
    plain = [word for name in PROFILE_VARIABLES for word in ("-u", name)]
    process.run(["env", *plain, sys.executable, "-c", CAMERA_WITHOUT_PROFILE])
    process.until(lambda: heard and int(heard[-1]["loss_reports"]) > 0)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in process.log.read_text()
