"""Message ↔ numpy. Only this file knows encodings, NaN, REP 118 and the layout of point clouds.

Incoming images become (H, W, 3) uint8 RGB, without a copy where the encoding allows it. Outgoing
messages are allocated once per camera and refilled in place: publishing copies them anyway.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import cached_property
from types import SimpleNamespace

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from mde_ros.config import NodeSettings
from mde_ros.frame import Camera
from mde_ros.geometry import rays

try:
    from rosbags.image import image_to_cvimage as _decode
except ImportError:  # a ROS installation has cv_bridge instead
    from cv_bridge import CvBridge

    _decode = CvBridge().imgmsg_to_cv2

BYTES_PER_PIXEL = {
    **dict.fromkeys(("mono8", "8UC1", "nv12", "nv21"), 1),
    **dict.fromkeys(("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"), 1),
    **dict.fromkeys(("mono16", "uyvy", "yuv422", "yuyv", "yuv422_yuy2"), 2),
    **dict.fromkeys(("bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"), 2),
    **dict.fromkeys(("rgb8", "bgr8", "8UC3"), 3),
    **dict.fromkeys(("rgba8", "bgra8", "8UC4"), 4),
    **dict.fromkeys(("rgb16", "bgr16"), 6),
    **dict.fromkeys(("rgba16", "bgra16"), 8),
}
# OpenCV's type names say nothing about colour; its convention is blue first.
SAME_AS = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
ImageSource = Callable[[], np.ndarray]


class Rejected(ValueError):
    """A message that cannot be used: what was expected and what came, and a reason to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def rgb_from_image(msg: Image) -> np.ndarray:
    """Image of any encoding in BYTES_PER_PIXEL → (H, W, 3) uint8 RGB; rgb8 is not copied.

    Raises:
        Rejected: unknown_encoding, zero_size, bad_step, bad_length or undecodable.
    """
    if msg.encoding not in BYTES_PER_PIXEL:
        raise Rejected(
            "unknown_encoding",
            f"image encoding: expected one of {', '.join(BYTES_PER_PIXEL)}, got {msg.encoding!r}",
        )
    if msg.width == 0 or msg.height == 0:
        raise Rejected(
            "zero_size", f"image size: expected a positive one, got {msg.width}x{msg.height}"
        )
    row_bytes, rows = msg.width * BYTES_PER_PIXEL[msg.encoding], msg.height
    if msg.step < row_bytes:
        raise Rejected(
            "bad_step",
            f"image step: expected at least {row_bytes} bytes for {msg.width} pixels of"
            f" {msg.encoding}, got {msg.step}",
        )
    # The colour of nv12 and nv21 follows in half as many rows; most drivers do not count those.
    if msg.encoding in ("nv12", "nv21") and len(msg.data) == msg.step * (rows + rows // 2):
        rows += rows // 2
    if len(msg.data) != msg.step * rows:
        raise Rejected(
            "bad_length",
            f"image data: expected step x height = {msg.step} x {msg.height} ="
            f" {msg.step * msg.height} bytes, got {len(msg.data)}",
        )
    data = msg.data
    if msg.step > row_bytes:  # padded rows
        data = np.frombuffer(data, np.uint8).reshape(rows, msg.step)[:, :row_bytes].copy()
    packed = SimpleNamespace(
        encoding=SAME_AS.get(msg.encoding, msg.encoding),
        width=msg.width,
        height=rows,
        step=row_bytes,
        is_bigendian=msg.is_bigendian,
        data=data,
    )
    try:
        return _decode(packed, "rgb8")  # type: ignore[arg-type]  # reads the fields above only
    except (cv2.error, TypeError, ValueError) as error:  # such as yuyv of an odd width
        raise Rejected("undecodable", f"image of {msg.encoding}: {error}") from None


def rgb_from_compressed(msg: CompressedImage) -> np.ndarray:
    """CompressedImage (JPEG, PNG or whatever OpenCV reads) → (H, W, 3) uint8 RGB.

    Raises:
        Rejected: unknown_encoding for compressed depth, undecodable for broken data.
    """
    if "compressedDepth" in msg.format:
        raise Rejected(
            "unknown_encoding", f"compressed image: expected a colour image, got {msg.format!r}"
        )
    original, _, codec = msg.format.partition(";")
    raw_bayer = original.startswith("bayer") and "bgr8" not in codec and "rgb8" not in codec
    flags = cv2.IMREAD_GRAYSCALE if raw_bayer else cv2.IMREAD_COLOR
    data = np.frombuffer(msg.data, np.uint8)
    # A camera's pixels stay where they are: camera_info knows nothing of EXIF orientation.
    image = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise Rejected(
            "undecodable",
            f"compressed image: expected JPEG or PNG data, got {data.size} bytes of"
            f" {msg.format!r} that cannot be decoded",
        )
    if raw_bayer:
        encoding = original.strip().replace("16", "8")
        height, width = image.shape
        return rgb_from_image(
            Image(
                encoding=encoding,
                width=width,
                height=height,
                step=width,
                data=array("B", image.tobytes()),
            )
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def camera_from_info(msg: CameraInfo, rectified: bool = False) -> Camera:
    """CameraInfo → Camera of the images it comes with (binning and region of interest applied).

    Args:
        msg: calibration; K and D count, or P alone for images that are rectified already.
        rectified: whether they are.

    Raises:
        Rejected: camera_info_invalid, when it is not that of a calibrated camera.
    """
    try:
        if rectified:
            K = np.asarray(msg.p, np.float64).reshape(3, 4)[:, :3]
            camera = Camera(msg.width, msg.height, K)
        else:
            camera = Camera(msg.width, msg.height, msg.k, np.asarray(msg.d), msg.distortion_model)
        roi = msg.roi
        if roi.width and roi.height:
            camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
        if msg.binning_x > 1 or msg.binning_y > 1:
            bins_x, bins_y = max(msg.binning_x, 1), max(msg.binning_y, 1)
            camera = camera.resized(camera.width // bins_x, camera.height // bins_y)
        return camera
    except ValueError as error:
        raise Rejected("camera_info_invalid", f"camera_info: {error}") from None


class Outputs:
    """The outgoing messages of one camera; each is allocated when first asked for.

    Args:
        camera: that of the depth, without distortion.
        settings: depth_encoding, point_stride, point_colour and colour_max_depth count.

    Each method takes the header of the image, depth_m, (H, W) float32 metres with 0 = none, and
    rgb, called for the (H, W, 3) uint8 image only if that is needed. It returns the same message
    each time, refilled.
    """

    def __init__(self, camera: Camera, settings: NodeSettings) -> None:
        self.camera, self.settings = camera, settings

    def camera_info(self, header: Header, depth_m: np.ndarray, rgb: ImageSource) -> CameraInfo:
        """The camera of the depth: K and P filled, no distortion."""
        self._info.header = header
        return self._info

    def depth(self, header: Header, depth_m: np.ndarray, rgb: ImageSource) -> Image:
        """REP 118: 32FC1 metres with NaN = none, or 16UC1 millimetres with 0 = none."""
        msg, view, scratch = self._depth
        if self.settings.depth_encoding == "16UC1":
            np.multiply(depth_m, np.float32(1000), out=scratch)
            scratch += np.float32(0.5)  # the conversion below truncates
            cv2.threshold(scratch, 65535.99, 0, cv2.THRESH_TOZERO_INV, dst=scratch)
            np.copyto(view, scratch, casting="unsafe")
        else:
            zero_to_nan(depth_m, out=view)
        msg.header = header
        return msg

    def points(self, header: Header, depth_m: np.ndarray, rgb: ImageSource) -> PointCloud2:
        """Organised cloud of every point_stride-th row and column, NaN = none."""
        step = self.settings.point_stride
        msg, view, ray_x, ray_y, x, y, z, bgr0, none = self._points
        zero_to_nan(depth_m[::step, ::step], out=z)
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

    def colour(self, header: Header, depth_m: np.ndarray, rgb: ImageSource) -> Image:
        """bgr8 for looking: red is near, blue is colour_max_depth and beyond, black is none."""
        msg, view, level, table = self._colour
        # Level 0 is kept for none: the offset lifts every depth above it.
        cv2.convertScaleAbs(depth_m, level, 254.5 / self.settings.colour_max_depth, 0.499)
        cv2.applyColorMap(level, table, view)
        msg.header = header
        return msg

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


def zero_to_nan(depth_m: np.ndarray, out: np.ndarray) -> None:
    """Copy depth with 0 turned into NaN, every other value bit for bit."""
    with np.errstate(invalid="ignore"):
        np.divide(depth_m, depth_m > 0, out=out)  # x / 1 = x, 0 / 0 = NaN; ten times a mask's speed


def _image(width: int, height: int, encoding: str, step: int) -> Image:
    msg = Image(width=width, height=height, encoding=encoding, step=step)
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.data = array("B", bytes(step * height))
    return msg
