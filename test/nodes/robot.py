"""A robot around the node under test: camera, listeners, stub networks with planted answers."""

from __future__ import annotations

import json
import time
from array import array
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import rclpy
from onnx import TensorProto, helper
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField

from mde_ros.nodes.completion_node import CompletionNode
from mde_ros.nodes.depth_node import DepthNode
from mde_ros.nodes.outputs import OUTPUTS
from mde_ros.runtime import sha256_of

DEADLINE_S = 20.0


def write_network(path: Path, per_red: float = 0.0, metres: float = 2.0, size=None) -> Path:
    """An ONNX network of this package's kind: depth = metres + per_red * red value (0..255)."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])
    focal = helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1])
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, "h", "w"])
    constants = {"zero": [0], "one": [1], "axis": [3]}
    weights = [helper.make_tensor(k, TensorProto.INT64, [1], v) for k, v in constants.items()]
    weights += [helper.make_tensor("per_red", TensorProto.FLOAT, [], [per_red])]
    weights += [helper.make_tensor("metres", TensorProto.FLOAT, [], [metres])]
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["red"]),
        helper.make_node("Cast", ["red"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["plane"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["plane", "per_red"], ["product"]),
        helper.make_node("Add", ["product", "metres"], ["depth"]),
    ]
    graph = helper.make_graph(nodes, "stub", [image, focal], [depth], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    spec = {"name": "stub", **({"size": list(size)} if size else {})}
    helper.set_model_props(model, {"mde_ros": json.dumps(spec)})
    onnx.save(model, path)
    return path


def write_mask(model: Path, metres: float = 2.0, threshold: float = 0.0, rate: float = 0.0) -> Path:
    """A model with its mask: saliency = red / 255, depth = metres x (1 + green / 255).

    Where nothing is green, depth is that of write_network's wall.
    """
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])
    focal = helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1])
    maps = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "h", "w"])
        for name in ("depth", "saliency")
    ]
    constants = {"zero": [0], "one": [1], "two": [2], "axis": [1]}
    weights = [helper.make_tensor(k, TensorProto.INT64, [1], v) for k, v in constants.items()]
    weights += [
        helper.make_tensor(k, TensorProto.FLOAT, [], [v])
        for k, v in {"most": 255.0, "metres": metres}.items()
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planes", "most"], ["shares"]),
        helper.make_node("Slice", ["shares", "zero", "one", "axis"], ["saliency"]),
        helper.make_node("Slice", ["shares", "one", "two", "axis"], ["green"]),
        helper.make_node("Mul", ["green", "metres"], ["more"]),
        helper.make_node("Add", ["more", "metres"], ["depth"]),
    ]
    spec = json.loads(onnx.load(model).metadata_props[0].value)
    inputs = [image, focal]
    if spec.get("takes_points"):
        inputs += [helper.make_tensor_value_info("sparse_m", TensorProto.FLOAT, [1, 1, "h", "w"])]
    graph = helper.make_graph(nodes, "stub", inputs, maps, weights)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    spec["masks"] = [{"model": "stub", "sha256": sha256_of(model)}]
    spec["alarm"] = {"threshold": threshold, "false_alarm_rate": rate}
    helper.set_model_props(whole, {"mde_ros": json.dumps(spec), "weights_sha256": sha256_of(model)})
    path = model.with_name(f"{model.stem}-mask.onnx")
    onnx.save(whole, path)
    return path


def write_completion(path: Path, gain: float = 1.0, size=(64, 48)) -> Path:
    """A completion network: depth = gain x points at their pixels, 9 m elsewhere.

    Its uncertainty is an eighth of its depth.
    """
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])
    focal = helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1])
    sparse, depth, uncertainty = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "h", "w"])
        for name in ("sparse_m", "depth", "uncertainty")
    )
    constants = {"gain": gain, "nothing": 0.0, "far": 9.0, "eighth": 0.125}
    weights = [helper.make_tensor(k, TensorProto.FLOAT, [], [v]) for k, v in constants.items()]
    nodes = [
        helper.make_node("Greater", ["sparse_m", "nothing"], ["known"]),
        helper.make_node("Mul", ["sparse_m", "gain"], ["scaled"]),
        helper.make_node("Where", ["known", "scaled", "far"], ["depth"]),
        helper.make_node("Mul", ["depth", "eighth"], ["uncertainty"]),
    ]
    inputs, outputs = [image, focal, sparse], [depth, uncertainty]
    graph = helper.make_graph(nodes, "stub", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    spec = {"name": "stub", "takes_points": True, "size": list(size)}
    helper.set_model_props(model, {"mde_ros": json.dumps(spec)})
    onnx.save(model, path)
    return path


def image_message(rgb: np.ndarray, stamp_ns: int = 1_000_000_000, frame_id: str = "cam") -> Image:
    """rgb8 Image of an (H, W, 3) uint8 array."""
    height, width = rgb.shape[:2]
    msg = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    msg.data = array("B", rgb.tobytes())
    return stamped(msg, stamp_ns, frame_id)


def info_message(
    width: int, height: int, focal: float = 100.0, D=(), model="plumb_bob", stamp_ns=1_000_000_000
) -> CameraInfo:
    """CameraInfo with square pixels and the principal point in the middle of the image."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    msg = CameraInfo(width=width, height=height, distortion_model=model, d=[float(d) for d in D])
    msg.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
    msg.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return stamped(msg, stamp_ns, "cam")


def scan_message(
    ranges, first: float = 0.0, step: float = 0.1, stamp_ns: int = 1_000_000_000, ray_s: float = 0.0
) -> LaserScan:
    """LaserScan of 0.1 to 30 m in the frame `laser`, with these ranges from the first angle on."""
    msg = LaserScan(angle_min=first, angle_increment=step, time_increment=ray_s)
    msg.angle_max = first + step * (len(ranges) - 1)
    msg.range_min, msg.range_max = 0.1, 30.0
    msg.ranges = [float(r) for r in ranges]
    return stamped(msg, stamp_ns, "laser")


def cloud_message(points, stamp_ns: int = 1_000_000_000) -> PointCloud2:
    """PointCloud2 of x, y, z float32 in the frame `laser`."""
    values = np.asarray(points, np.float32).reshape(-1, 3)
    msg = PointCloud2(height=1, width=len(values), point_step=12, row_step=12 * len(values))
    msg.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    msg.data = array("B", values.tobytes())
    return stamped(msg, stamp_ns, "laser")


def stamped(msg, stamp_ns: int, frame_id: str):
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    msg.header.frame_id = frame_id
    return msg


class Robot:
    """A camera and listeners in one context; nodes of the test run in the same executor."""

    def __init__(self, **init) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[], **init)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = defaultdict(list)
        self.image = self.publisher(Image, "image")
        self.info = self.publisher(CameraInfo, "camera_info")

    def publisher(self, kind, topic: str, reliability: str = "reliable"):
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability.upper()])
        return self.node.create_publisher(kind, topic, qos)

    def listen(self, *topics: str, reliability: str = "reliable") -> None:
        """Keep what comes on some of the node's outputs in `heard`."""
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy[reliability.upper()])
        for topic in topics:
            kind = OUTPUTS[topic][0]
            self.node.create_subscription(kind, topic, self.heard[topic].append, qos)

    def until(self, condition, deadline_s: float = DEADLINE_S) -> None:
        """Spin until the condition holds; fail when it does not in time."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        for node in self.executor.get_nodes():
            node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)


class Bench(Robot):
    """A robot with the depth node on board."""

    kind: type[DepthNode] = DepthNode
    depth: DepthNode

    def make(self, arguments: tuple[str, ...] | list[str] = (), **parameters) -> DepthNode:
        """An unconfigured node with parameters, or with arguments as on the command line."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = self.kind(
            context=self.context,
            parameter_overrides=overrides,
            cli_args=["--ros-args", *arguments] if arguments else None,
        )
        self.executor.add_node(node)
        return node

    def start(self, model: Path, *topics: str, **parameters) -> DepthNode:
        """Make the node active, with listeners on topics, and connected to the camera."""
        self.depth = self.make(model=str(model), **parameters)
        assert self.depth.start()
        self.listen(*topics)
        self.wire(self.depth, *topics)
        return self.depth

    def wire(self, node: DepthNode, *topics: str) -> None:
        """Wait until the camera and the listeners on topics are connected to the node."""
        for publisher in (self.image, self.info):
            self.until(publisher.get_subscription_count)
        for topic in topics:
            self.until(node.outputs._publishers[topic].get_subscription_count)

    def ask(self, client, request):
        """The answer of a service."""
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def show(self, image: Image, info: CameraInfo | None = None) -> None:
        """Send camera_info, then the image, and wait until the node has taken them."""
        if info is not None:
            info.header.stamp = image.header.stamp
            self.info.publish(info)
            self.until(lambda: self.depth._frames.stream._info == info)
        taken = self.depth.statistics.frames_in
        self.image.publish(image)
        self.until(lambda: self.depth.statistics.frames_in > taken)

    def answer(self, topic: str, image: Image, info: CameraInfo | None = None):
        """What comes on a topic for this image."""
        heard = len(self.heard[topic])
        self.show(image, info)

        def own() -> list:
            return [m for m in self.heard[topic][heard:] if m.header == image.header]

        self.until(own)
        return own()[0]


class CompletionBench(Bench):
    """A robot with the completion node and a laser on board."""

    kind = CompletionNode
    depth: CompletionNode

    def start(self, model: Path, *topics: str, scan=LaserScan, **parameters) -> CompletionNode:
        self.scan = self.publisher(scan, "scan")
        super().start(model, *topics, scan_type=scan.__name__, **parameters)
        self.until(self.scan.get_subscription_count)
        return self.depth

    def sweep(self, msg: LaserScan | PointCloud2) -> None:
        """Send a scan and wait until the node has taken it."""
        taken = self.depth.scan_statistics.scans_in
        self.scan.publish(msg)
        self.until(lambda: self.depth.scan_statistics.scans_in > taken)
