"""Starts a node as a process of its own, feeds it over DDS and measures what comes back.

`python -m mde_ros.nodes.probe IMAGES.npy --feeds depth cloud --set model:=FILE` prints one
JSON object; with `--beams N` the node is the completion node, and gets a scan with every image.
`mde benchmark` is its user.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from mde_ros.config import NodeSettings
from mde_ros.frame import Camera, Prediction
from mde_ros.isolation import die_with_parent
from mde_ros.nodes.convert import rgb_from_image
from mde_ros.nodes.outputs import Outputs
from mde_ros.nodes.process import dds_environment

FEEDS = ("depth", "cloud", "fast", "fast_cloud")
START_DEADLINE_S = 120.0
WARM_UP = 20
DISCOVERY_S = 0.3  # for a new subscription to be known to the node
OUTSTANDING = 2  # frames on their way when feeding as fast as it takes: one in work, one waiting


class ProbeError(RuntimeError):
    """The node did not come up or died."""


@dataclass
class Feed:
    """What was sent and what came back during one measurement."""

    sent: dict[int, float] = field(default_factory=dict)  # stamp → time sent, seconds
    received: dict[int, float] = field(default_factory=dict)  # stamp → time received

    def on_the_way(self) -> int:
        """Frames sent after the last one that came back; earlier ones are lost, none overtakes."""
        last = next(reversed(self.received), 0)
        return sum(stamp > last for stamp in list(self.sent)[-2 * OUTSTANDING :])

    def latencies_ms(self) -> list[float]:
        """Stamp to receive, of every frame that came back."""
        return [1e3 * (t - self.sent[s]) for s, t in self.received.items()]


class Probe:
    """A camera and a listener in one process.

    Args:
        images: (N, H, W, 3) uint8 RGB, sent in turn.
        focal_px: focal length told in camera_info.
        beams: of a scan over 270 degrees that is sent before each image, 0 = none.
    """

    def __init__(self, images: np.ndarray, focal_px: float, beams: int = 0) -> None:
        rclpy.init(args=[])
        self.node = rclpy.create_node("mde_probe")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._image_out = self.node.create_publisher(Image, "image", sensor)
        self._info_out = self.node.create_publisher(CameraInfo, "camera_info", sensor)
        self._messages, self._info = make_messages(images, focal_px)
        self._scan = make_scan(beams) if beams else None
        self._scan_out = self.node.create_publisher(LaserScan, "scan", sensor)
        self.feed = Feed()
        self._counted = "depth"
        self._inputs: dict[str, Any] = {}
        self._sent = 0

    def listen(self, *topics: str) -> None:
        """Subscribe to exactly these of depth and cloud; the last one counts as received."""
        kinds = {"depth": (Image, "depth/image_rect"), "cloud": (PointCloud2, "points")}
        for name in set(self._inputs) - set(topics):
            self.node.destroy_subscription(self._inputs.pop(name))
        for name in topics:
            if name not in self._inputs:
                kind, topic = kinds[name]
                callback = self._receiver(name)
                self._inputs[name] = self.node.create_subscription(kind, topic, callback, 5)
        self._counted = topics[-1]

    def send(self) -> None:
        """Publish the next image with its camera_info, and a scan, all stamped now."""
        now = time.time_ns()
        message = self._messages[self._sent % len(self._messages)]
        stamp = Time(nanoseconds=now).to_msg()
        message.header.stamp = self._info.header.stamp = stamp
        self._sent += 1
        self.feed.sent[now] = now * 1e-9
        if self._scan:
            self._scan.header.stamp = stamp
            self._scan_out.publish(self._scan)
        self._info_out.publish(self._info)
        self._image_out.publish(message)

    def spin_until(self, when: float, done: Callable[[], bool] = lambda: False) -> None:
        """Receive until a time.monotonic() or until a condition holds."""
        while not done() and (left := when - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def at_rate(self, frames: int, rate_hz: float) -> Feed:
        """Send frames evenly in time, whatever comes back."""
        feed = self.feed = Feed()
        begin = time.monotonic()
        for i in range(frames):
            self.spin_until(begin + i / rate_hz)
            self.send()
        self.spin_until(time.monotonic() + 1.0, lambda: len(feed.received) == frames)
        return feed

    def as_fast(self, frames: int, each: Callable[[int], None] = lambda i: None) -> Feed:
        """Send the next frame whenever fewer than OUTSTANDING are on their way."""
        feed = self.feed = Feed()
        for i in range(frames):
            # Frames that are lost would halt the feed, so wait for them only so long.
            self.spin_until(time.monotonic() + 0.5, lambda: feed.on_the_way() < OUTSTANDING)
            self.send()
            each(i)
        self.spin_until(time.monotonic() + 1.0, lambda: len(feed.received) == frames)
        return feed

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()

    def _receiver(self, name: str) -> Callable[[Any], None]:
        def callback(msg: Any) -> None:
            now, stamp = time.time(), Time.from_msg(msg.header.stamp).nanoseconds
            if name == self._counted and stamp in self.feed.sent:
                self.feed.received[stamp] = now

        return callback


def make_messages(images: np.ndarray, focal_px: float) -> tuple[list[Image], CameraInfo]:
    """Images (N, H, W, 3) as rgb8 messages, and their camera_info."""
    _, height, width, _ = images.shape
    messages = []
    for pixels in images:
        msg = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        msg.header.frame_id = "camera_optical"
        msg.data = array("B", pixels.tobytes())
        messages.append(msg)
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = "camera_optical"
    info.k = camera_matrix(width, height, focal_px).ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([info.k.reshape(3, 3), np.zeros((3, 1))]).ravel()
    return messages, info


def make_scan(beams: int) -> LaserScan:
    """A wall 3 m away on all sides."""
    half = np.radians(135)
    scan = LaserScan(range_min=0.05, range_max=30.0, ranges=[3.0] * beams)
    scan.header.frame_id = "laser"
    scan.angle_min, scan.angle_max = -half, half
    scan.angle_increment = 2 * half / (beams - 1)
    return scan


def camera_matrix(width: int, height: int, focal_px: float) -> np.ndarray:
    """K of a camera that looks through the middle of its image."""
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MiB, without pages shared with others (the DDS segments)."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    images: np.ndarray,
    focal_px: float,
    parameters: list[str],
    feeds: list[str],
    frames: int,
    rate_hz: float,
    soak: int = 0,
    beams: int = 0,
) -> dict[str, Any]:
    """Start the node with these parameters, run the feeds one after the other, stop it.

    With `beams` it is the completion node, fed scans of so many.

    Returns:
        `first_depth_s` after the process was started, per feed what `_summary` gives, `rss_mb`,
        with `soak` the memory over that many frames, and the node's `exit_code`.

    Raises:
        ProbeError: when no depth comes, or the node ends early.
    """
    probe = Probe(images, focal_px, beams)
    node = "completion_node" if beams else "depth_node"
    command = [sys.executable, "-m", f"mde_ros.nodes.{node}", "--ros-args"]
    for parameter in ("autostart:=true", *parameters):
        command += ["-p", parameter]
    probe.listen("depth")
    started = time.monotonic()
    child = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=die_with_parent)
    try:
        while not probe.feed.received:
            if child.poll() is not None:
                raise ProbeError(f"the node ended with code {child.returncode} before any depth")
            if time.monotonic() - started > START_DEADLINE_S:
                raise ProbeError(f"no depth within {START_DEADLINE_S:.0f} s")
            probe.send()
            probe.spin_until(time.monotonic() + 1 / 30, lambda: bool(probe.feed.received))
        out: dict[str, Any] = {"first_depth_s": time.monotonic() - started, "feeds": {}}
        for name in feeds:
            probe.listen(*(("depth", "cloud") if "cloud" in name else ("depth",)))
            probe.spin_until(time.monotonic() + DISCOVERY_S)
            probe.as_fast(WARM_UP)
            cpu = cpu_seconds(child.pid)
            fast = name.startswith("fast")
            feed = probe.as_fast(frames) if fast else probe.at_rate(frames, rate_hz)
            spent = cpu_seconds(child.pid) - cpu
            out["feeds"][name] = _summary(feed, spent)
        out["rss_mb"] = rss_mb(child.pid)
        if soak:
            out["soak"] = _soak(probe, child.pid, soak)
        if child.poll() is not None:
            raise ProbeError(f"the node ended with code {child.returncode} while it was fed")
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        probe.close()
    return {**out, "exit_code": child.returncode}


def measure_messages(images: np.ndarray, focal_px: float, rounds: int = 100) -> dict[str, float]:
    """Median milliseconds of what the node does around the pipeline, without DDS."""
    messages, info = make_messages(images[:1], focal_px)
    camera = Camera(info.width, info.height, info.k)
    depth = np.random.default_rng(0).uniform(0.5, 6, images.shape[1:3]).astype(np.float32)
    prediction = Prediction(depth)
    rgb = images[0]
    outputs = Outputs(camera, NodeSettings())
    header = messages[0].header
    steps: dict[str, Callable[[], Any]] = {
        "image_to_rgb": lambda: rgb_from_image(messages[0]),
        "depth_message": lambda: outputs.depth(header, prediction, lambda: rgb),
        "cloud_message": lambda: outputs.points(header, prediction, lambda: rgb),
        "colour_message": lambda: outputs.colour(header, prediction, lambda: rgb),
    }
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 5):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if i >= 5:
                spent[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(values)) for name, values in spent.items()}


def _soak(probe: Probe, pid: int, frames: int) -> dict[str, Any]:
    samples: list[list[float]] = []
    every = max(1, frames // 20)

    def look(i: int) -> None:
        if i % every == 0 or i == frames - 1:
            samples.append([i, rss_mb(pid)])
            probe.feed.sent = dict(list(probe.feed.sent.items())[-1000:])
            probe.feed.received = {
                k: v for k, v in probe.feed.received.items() if k in probe.feed.sent
            }

    probe.listen("depth", "cloud")
    probe.as_fast(frames, look)
    half = [mb for i, mb in samples if i >= frames // 2]
    return {"frames": frames, "rss_mb": samples, "growth_mb": half[-1] - half[0]}


def _summary(feed: Feed, cpu_s: float) -> dict[str, Any]:
    """Counts, rate, latency percentiles and CPU time of the node per frame."""
    latencies = feed.latencies_ms()
    out: dict[str, Any] = {
        "sent": len(feed.sent),
        "received": len(latencies),
        "lost": len(feed.sent) - len(latencies),
        "cpu_ms_per_frame": 1e3 * cpu_s / max(len(latencies), 1),
    }
    if latencies:
        seconds = max(feed.received.values()) - min(feed.sent.values())
        out["fps"] = len(latencies) / seconds
        p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()
        out["latency_ms"] = {"p50": p50, "p95": p95, "p99": p99}
    return out


def main(arguments: list[str] | None = None) -> int:
    """Measure and print JSON; exit code 1 with a sentence when the node fails."""
    parser = argparse.ArgumentParser(prog="probe", description=__doc__)
    parser.add_argument("images", help=".npy file of (N, H, W, 3) uint8 RGB images")
    parser.add_argument("--feeds", nargs="*", default=[], choices=FEEDS)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rate", type=float, default=30.0, help="of depth and cloud, in Hz")
    parser.add_argument("--soak", type=int, default=0, help="frames of a memory test at the end")
    parser.add_argument("--focal", type=float, default=525.0, help="focal length in pixels")
    parser.add_argument("--beams", type=int, default=0, help="of a scan, for the completion node")
    parser.add_argument("--messages", action="store_true", help="time conversions instead")
    parser.add_argument("--set", nargs="*", default=[], help="NAME:=VALUE parameters of the node")
    a = parser.parse_args(arguments)
    images = np.load(a.images)
    os.environ.update(dds_environment())
    try:
        if a.messages:
            result: dict[str, Any] = measure_messages(images, a.focal)
        else:
            result = measure(images, a.focal, a.set, a.feeds, a.frames, a.rate, a.soak, a.beams)
    except ProbeError as error:
        print(f"probe: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
