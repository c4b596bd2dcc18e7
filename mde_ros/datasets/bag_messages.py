"""Messages of a bag ↔ numpy, without ROS: what nodes/convert.py is for live messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from rosbags.image.image import ImageError, convert_color, to_cvtype
from rosbags.typesys import Stores, get_typestore

from mde_ros.frame import Camera, Frame
from mde_ros.geometry import to_millimetres

JAZZY = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, TF = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
SCAN, CLOUD = "sensor_msgs/msg/LaserScan", "sensor_msgs/msg/PointCloud2"
DEPTH_ENCODINGS = ("32FC1", "16UC1")
MASK_ENCODINGS = ("mono8", "8UC1", "32SC1")
MASK_NAMES = ("moving", "dynamic", "mask", "moving_mask", "dynamic_mask", "motion_mask")
# OpenCV's type names say nothing about colour; its convention is blue first.
SAME_AS = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}

IMAGE_TOPIC, INFO_TOPIC = "/camera/image_raw", "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
SAMPLE_TOPICS = {IMAGE_TOPIC: IMAGE, INFO_TOPIC: CAMERA_INFO, DEPTH_TOPIC: IMAGE}
OPTICAL_FRAME = "camera_optical_frame"


def stamp_ns(header: Any, otherwise_ns: int = 0) -> int:
    """Nanoseconds of a std_msgs/Header; a stamp of zero means that there is none."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or otherwise_ns


def _pixels(message: Any) -> np.ndarray:
    """Pixels of an Image as it is encoded, (H, W) or (H, W, C); rows may be padded."""
    _, _, type_name, channels = to_cvtype(message.encoding)
    dtype = np.dtype(type_name).newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if not (message.height and message.width and message.step >= row):
        raise ImageError(f"{message.width}x{message.height} does not fit a step of {message.step}")
    rows = message.height
    # The colour of nv12 and nv21 follows in half as many rows; most drivers do not count those.
    if message.encoding in ("nv12", "nv21") and data.size == message.step * (rows + rows // 2):
        rows += rows // 2
    if data.size != rows * message.step:
        raise ImageError(f"expected {rows * message.step} bytes of data, got {data.size}")
    rowed = data.reshape(rows, message.step)[:, :row]
    pixels = np.ascontiguousarray(rowed).view(dtype)
    pixels = pixels.astype(dtype.newbyteorder("="), copy=False)
    return pixels.reshape(rows, message.width, channels) if channels > 1 else pixels


def image_rgb(message: Any) -> np.ndarray:
    """Image or CompressedImage → (H, W, 3) uint8 RGB.

    Raises:
        ImageError: on an encoding or size that is no picture.
    """
    if hasattr(message, "format"):
        return _compressed_rgb(message)
    encoding = SAME_AS.get(message.encoding, message.encoding)
    return convert_color(_pixels(message), encoding, "rgb8")


def _compressed_rgb(message: Any) -> np.ndarray:
    original, _, codec = message.format.partition(";")
    mosaic = original.startswith("bayer") and "bgr8" not in codec and "rgb8" not in codec
    # A camera's pixels stay where they are: camera_info knows nothing of EXIF orientation.
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR)
    data = np.frombuffer(message.data, np.uint8)
    image = None
    if data.size and "compressedDepth" not in message.format:
        image = cv2.imdecode(data, flags)
    if image is None:
        raise ImageError(f"{message.format!r} data cannot be decoded as a colour image")
    if mosaic:
        return convert_color(image, original.strip().replace("16", "8"), "rgb8")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def depth_metres(message: Any, units_per_m: float = 1000.0) -> np.ndarray:
    """Depth image (32FC1 m, 16UC1 or mono16 of so many units) → (H, W) float32 m, 0 = none.

    `compressedDepth` of image_transport is understood too.

    Raises:
        ImageError: on an encoding that is no depth.
    """
    if hasattr(message, "format"):
        depth = _compressed_depth(message)
    else:
        if message.encoding not in (*DEPTH_ENCODINGS, "mono16"):
            raise ImageError(
                f"expected depth as {', '.join(DEPTH_ENCODINGS)} or mono16, got {message.encoding}"
            )
        depth = _pixels(message)
    if depth.dtype == np.uint16:
        return depth / np.float32(units_per_m)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _compressed_depth(message: Any) -> np.ndarray:
    """(H, W) uint16 units, or float32 metres from compressed_depth_image_transport's inverse."""
    data = np.frombuffer(message.data, np.uint8)
    transported = "compressedDepth" in message.format  # a header of 12 bytes lies in front
    image = None
    if data.size > 12:
        image = cv2.imdecode(data[12:] if transported else data, cv2.IMREAD_UNCHANGED)
    inverse = message.format.startswith("32FC1")
    if image is None or image.dtype != np.uint16 or (inverse and not transported):
        raise ImageError(f"{message.format!r} data cannot be decoded as depth")
    if not inverse:
        return image
    a, b = np.frombuffer(data[4:12].tobytes(), "<f4")
    with np.errstate(divide="ignore"):
        return np.where(image > 0, a / (image - b), 0).astype(np.float32)


def is_depth(message: Any, topic: str) -> bool:
    """Whether an image is depth: by its encoding, and mono16 by the name of its topic."""
    kind = getattr(message, "encoding", None) or message.format.partition(";")[0].strip()
    return kind in DEPTH_ENCODINGS or (kind == "mono16" and "depth" in topic.lower())


def mask_of(message: Any) -> np.ndarray:
    """Mask or instance image (mono8, 8UC1, 32SC1, or a PNG of one channel) → (H, W) bool: > 0.

    Raises:
        ImageError: on an encoding that is no mask.
    """
    if hasattr(message, "format"):
        data = np.frombuffer(message.data, np.uint8)
        labels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if labels is None or labels.ndim != 2:
            raise ImageError(f"{message.format!r} data cannot be decoded as a mask")
        return labels > 0
    if message.encoding not in MASK_ENCODINGS:
        raise ImageError(f"expected a mask as {', '.join(MASK_ENCODINGS)}, got {message.encoding}")
    return _pixels(message) > 0


def is_mask(message: Any, topic: str) -> bool:
    """Whether an image marks what moves: by a name such as …/moving, and one channel."""
    *_, parent, name = ["", *topic.split("/")]
    if name in ("compressed", "image", "image_raw", "image_rect"):
        name = parent
    kind = getattr(message, "encoding", None) or message.format.partition(";")[0].strip()
    return name in MASK_NAMES and kind in MASK_ENCODINGS


def camera_of(message: Any) -> Camera:
    """CameraInfo of ROS 1 or ROS 2 → Camera of its images, binning and region applied.

    Raises:
        ValueError: when it is not calibrated.
    """
    ros1 = hasattr(message, "K")  # which writes them in capitals
    K, D = (message.K, message.D) if ros1 else (message.k, message.d)
    # The RealSense SDK's name of the same five coefficients.
    model = "plumb_bob" if message.distortion_model == "Brown Conrady" else message.distortion_model
    camera, roi = Camera(message.width, message.height, K, D, model), message.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    if message.binning_x > 1 or message.binning_y > 1:
        bins = max(message.binning_x, 1), max(message.binning_y, 1)
        camera = camera.resized(camera.width // bins[0], camera.height // bins[1])
    return camera


def _header(stamp: int, frame_id: str) -> Any:
    time = JAZZY.types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
    return JAZZY.types["std_msgs/msg/Header"](time, frame_id)


def _image_message(pixels: np.ndarray, encoding: str, header: Any) -> Any:
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    height, width = pixels.shape[:2]
    return JAZZY.types[IMAGE](header, height, width, encoding, 0, data.size // height, data)


def _info_message(camera: Camera, header: Any) -> Any:
    roi = JAZZY.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    P = np.hstack([camera.K, np.zeros((3, 1))]).ravel()
    return JAZZY.types[CAMERA_INFO](
        header, camera.height, camera.width, camera.distortion_model, camera.D,
        camera.K.ravel(), np.eye(3).ravel(), P, 0, 0, roi,
    )  # fmt: skip


def sample_messages(
    frame: Frame, depth_m: np.ndarray | None, stamp: int
) -> Iterator[tuple[str, int, bytes]]:
    """A frame and its measured depth as (topic of SAMPLE_TOPICS, time, CDR); depth as 16UC1."""
    header = _header(stamp, OPTICAL_FRAME)
    messages = {
        INFO_TOPIC: _info_message(frame.camera, header),  # first, so that it is there in time
        IMAGE_TOPIC: _image_message(frame.image, "rgb8", header),
    }
    if depth_m is not None:
        depth_mm = to_millimetres(depth_m).astype("<u2")
        messages[DEPTH_TOPIC] = _image_message(depth_mm, "16UC1", header)
    for topic, message in messages.items():
        yield topic, stamp, bytes(JAZZY.serialize_cdr(message, SAMPLE_TOPICS[topic]))
