"""Messages that come in → numpy; outputs.py is for those that go out.

Images become (H, W, 3) uint8 RGB, without a copy where the encoding allows it.
"""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mde_ros.frame import Camera

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
