"""What a node publishes: predictions as messages, made only for the topics somebody listens to.

Messages are allocated once per camera and refilled in place: publishing copies them anyway.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Float32, Header

from mde_ros.config import NodeSettings
from mde_ros.frame import Camera, Prediction
from mde_ros.geometry import rays

ImageSource = Callable[[], np.ndarray]


class Outputs:
    """The outgoing messages of one camera; each is allocated when first asked for.

    Args:
        camera: that of the depth, without distortion.
        settings: depth_encoding, point_stride, point_colour and colour_max_depth count.

    Each method takes the header of the image, what was predicted for it, and rgb, called for the
    (H, W, 3) uint8 image only if that is needed. It returns the same message each time, refilled.
    """

    def __init__(self, camera: Camera, settings: NodeSettings) -> None:
        self.camera, self.settings = camera, settings

    def camera_info(self, header: Header, prediction: Prediction, rgb: ImageSource) -> CameraInfo:
        """The camera of the depth: K and P filled, no distortion."""
        self._info.header = header
        return self._info

    def depth(self, header: Header, prediction: Prediction, rgb: ImageSource) -> Image:
        """REP 118: 32FC1 metres with NaN = none, or 16UC1 millimetres with 0 = none."""
        msg, view, scratch = self._depth
        if self.settings.depth_encoding == "16UC1":
            np.multiply(prediction.depth, np.float32(1000), out=scratch)
            scratch += np.float32(0.5)  # the conversion below truncates
            cv2.threshold(scratch, 65535.99, 0, cv2.THRESH_TOZERO_INV, dst=scratch)
            np.copyto(view, scratch, casting="unsafe")
        else:
            zero_to_nan(prediction.depth, out=view)
        msg.header = header
        return msg

    def points(self, header: Header, prediction: Prediction, rgb: ImageSource) -> PointCloud2:
        """Organised cloud of every point_stride-th row and column, NaN = none."""
        step = self.settings.point_stride
        msg, view, ray_x, ray_y, x, y, z, bgr0, none = self._points
        zero_to_nan(prediction.depth[::step, ::step], out=z)
        cv2.multiply(ray_x, z, dst=x)
        cv2.multiply(ray_y, z, dst=y)
        if self.settings.point_colour:
            cv2.mixChannels(
                [np.ascontiguousarray(rgb()[::step, ::step])], [bgr0], [0, 2, 1, 1, 2, 0]
            )
            colour = bgr0.view(np.float32)[..., 0]
            cv2.merge([x, y, z, none, colour, none, none, none], dst=view)
        else:
            cv2.merge([x, y, z, none], dst=view)
        msg.header = header
        return msg

    def colour(self, header: Header, prediction: Prediction, rgb: ImageSource) -> Image:
        """bgr8 for looking: red is near, blue is colour_max_depth and beyond, black is none."""
        msg, view, level, table = self._colour
        # Level 0 is kept for none: the offset lifts every depth above it.
        scale = 254.5 / self.settings.colour_max_depth
        cv2.convertScaleAbs(prediction.depth, level, scale, 0.499)
        cv2.applyColorMap(level, table, view)
        msg.header = header
        return msg

    def uncertainty(self, header: Header, prediction: Prediction, rgb: ImageSource) -> Image:
        """32FC1: standard deviation of the depth in metres, NaN where there is no depth."""
        assert prediction.uncertainty is not None, "a topic of networks that tell it only"
        msg, view = self._uncertainty
        zero_to_nan(prediction.uncertainty, out=view)
        msg.header = header
        return msg

    def saliency(self, header: Header, prediction: Prediction, rgb: ImageSource) -> Image:
        """mono8: 255 is what the mask showed to the network, 0 what it hid."""
        assert prediction.saliency is not None, "a topic of the defence only"
        msg, view = self._saliency
        cv2.convertScaleAbs(prediction.saliency, view, 255)
        msg.header = header
        return msg

    def disagreement(self, header: Header, prediction: Prediction, rgb: ImageSource) -> Float32:
        """What the monitor measured of this image; messages come in the order of the images."""
        assert prediction.disagreement is not None, "a topic of the monitor only"
        return Float32(data=prediction.disagreement)

    @cached_property
    def _info(self) -> CameraInfo:
        c = self.camera
        msg = CameraInfo(width=c.width, height=c.height, distortion_model="plumb_bob", d=[0.0] * 5)
        msg.k = c.K.ravel()
        msg.r = np.eye(3).ravel()
        msg.p = np.hstack([c.K, np.zeros((3, 1))]).ravel()
        return msg

    @cached_property
    def _depth(self) -> tuple[Image, np.ndarray, np.ndarray]:
        c, encoding = self.camera, self.settings.depth_encoding
        dtype = np.dtype(np.uint16 if encoding == "16UC1" else np.float32)
        msg = _image(c.width, c.height, encoding, c.width * dtype.itemsize)
        view = np.frombuffer(msg.data, dtype).reshape(c.height, c.width)
        return msg, view, np.empty((c.height, c.width), np.float32)

    @cached_property
    def _uncertainty(self) -> tuple[Image, np.ndarray]:
        c = self.camera
        msg = _image(c.width, c.height, "32FC1", c.width * 4)
        return msg, np.frombuffer(msg.data, np.float32).reshape(c.height, c.width)

    @cached_property
    def _saliency(self) -> tuple[Image, np.ndarray]:
        c = self.camera
        msg = _image(c.width, c.height, "mono8", c.width)
        return msg, np.frombuffer(msg.data, np.uint8).reshape(c.height, c.width)

    @cached_property
    def _points(self) -> tuple:
        s, coloured = self.settings.point_stride, self.settings.point_colour
        directions = rays(self.camera)[::s, ::s]
        height, width = directions.shape[:2]
        names = {"x": 0, "y": 4, "z": 8, **({"rgb": 16} if coloured else {})}
        msg = PointCloud2(width=width, height=height, is_dense=False)
        msg.is_bigendian = sys.byteorder == "big"
        msg.fields = [
            PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
            for name, offset in names.items()
        ]
        msg.point_step = 32 if coloured else 16
        msg.row_step = msg.point_step * width
        msg.data = array("B", bytes(msg.row_step * height))
        view = np.frombuffer(msg.data, np.float32).reshape(height, width, msg.point_step // 4)
        ray_x, ray_y = (np.ascontiguousarray(directions[..., i]) for i in (0, 1))
        x, y, z = (np.empty((height, width), np.float32) for _ in range(3))
        bgr0, none = np.zeros((height, width, 4), np.uint8), np.zeros((height, width), np.float32)
        return msg, view, ray_x, ray_y, x, y, z, bgr0, none

    @cached_property
    def _colour(self) -> tuple[Image, np.ndarray, np.ndarray, np.ndarray]:
        c = self.camera
        msg = _image(c.width, c.height, "bgr8", c.width * 3)
        view = np.frombuffer(msg.data, np.uint8).reshape(c.height, c.width, 3)
        levels = np.arange(255, -1, -1, dtype=np.uint8).reshape(256, 1)
        table = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)
        table[0] = 0
        return msg, view, np.empty((c.height, c.width), np.uint8), table


OUTPUTS: dict[str, tuple[type, Callable]] = {
    "depth/image_rect": (Image, Outputs.depth),
    "depth/camera_info": (CameraInfo, Outputs.camera_info),
    "points": (PointCloud2, Outputs.points),
    "depth/colour": (Image, Outputs.colour),
    "uncertainty": (Image, Outputs.uncertainty),  # of networks that tell it
    "saliency": (Image, Outputs.saliency),
    "disagreement": (Float32, Outputs.disagreement),
}
DEFENCES = {"saliency": ("mask", "monitor"), "disagreement": ("monitor",)}  # that fill a topic


class Publishers:
    """The publishers of a node's outputs: only what somebody listens to is made and sent.

    Args:
        node: whose lifecycle decides whether anything is sent.
        settings: returns the present ones, see Outputs.
    """

    def __init__(self, node: LifecycleNode, settings: Callable[[], NodeSettings]) -> None:
        self._node, self._settings = node, settings
        self._publishers: dict = {}
        self._outputs: Outputs | None = None

    def open(self, prediction: Prediction, qos: QoSProfile) -> None:
        """Create the publishers of all topics that such a prediction, or a defence, can fill."""
        for topic, (kind, _) in OUTPUTS.items():
            if topic != "uncertainty" or prediction.uncertainty is not None:
                self._publishers[topic] = self._node.create_lifecycle_publisher(kind, topic, qos)

    def close(self) -> None:
        """Destroy the publishers and forget the messages."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._outputs = None

    def wanted(self) -> list[str]:
        """The topics somebody listens to, of those that the present defence fills."""
        defence = self._settings().defence
        return [
            topic
            for topic, publisher in self._publishers.items()
            if defence in DEFENCES.get(topic, (defence,)) and publisher.get_subscription_count()
        ]

    def publish(
        self,
        topics: list[str],
        header: Header,
        camera: Camera,
        prediction: Prediction,
        rgb: ImageSource,
    ) -> None:
        """Make and send the messages of these topics; see Outputs for the arguments."""
        out, settings = self._outputs, self._settings()
        if out is None or out.camera is not camera or out.settings is not settings:
            self._outputs = out = Outputs(camera, settings)
        for topic in topics:
            _, fill = OUTPUTS[topic]
            self._publishers[topic].publish(fill(out, header, prediction, rgb))


def qos(reliability: str) -> QoSProfile:
    """Only the newest message is kept: stale frames are dropped by the middleware."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])


def zero_to_nan(depth_m: np.ndarray, out: np.ndarray) -> None:
    """Copy depth with 0 turned into NaN, every other value bit for bit."""
    with np.errstate(invalid="ignore"):
        np.divide(depth_m, depth_m > 0, out=out)  # x / 1 = x, 0 / 0 = NaN; ten times a mask's speed


def _image(width: int, height: int, encoding: str, step: int) -> Image:
    msg = Image(width=width, height=height, encoding=encoding, step=step)
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.data = array("B", bytes(step * height))
    return msg
