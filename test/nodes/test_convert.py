"""Images and cameras that come in: planted pixels, without any node."""

import importlib.util
import sys
from array import array
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from robot import image_message, info_message
from sensor_msgs.msg import CompressedImage, Image

from mde_ros.nodes.convert import (
    BYTES_PER_PIXEL,
    Rejected,
    camera_from_info,
    rgb_from_compressed,
    rgb_from_image,
)

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 6, 8
RED, GREEN, BLUE = 200, 100, 50


def message(encoding: str, pixels: np.ndarray, height: int = HEIGHT, padding: int = 0) -> Image:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    msg = Image(encoding=encoding, width=WIDTH, height=height, step=rows.shape[1])
    msg.data = array("B", rows.tobytes())
    return msg


def flat(*values: int, dtype=np.uint8) -> np.ndarray:
    return np.tile(np.array(values, dtype), (HEIGHT, WIDTH, 1))


def mosaic(pattern: str, dtype=np.uint8) -> np.ndarray:
    values = {"r": RED, "g": GREEN, "b": BLUE}
    cell = np.array([values[c] for c in pattern], dtype).reshape(2, 2)
    return np.tile(cell, (HEIGHT // 2, WIDTH // 2))


def planes(*chroma: int) -> np.ndarray:
    """Pure red in 4:2:0: a plane of Y = 81 above half as many rows of interleaved chroma."""
    half = np.tile(np.array(chroma, np.uint8), (HEIGHT // 2, WIDTH // 2))
    return np.vstack([np.full((HEIGHT, WIDTH), 81, np.uint8), half])


COLOURED = {
    "rgb8": flat(RED, GREEN, BLUE),
    "bgr8": flat(BLUE, GREEN, RED),
    "8UC3": flat(BLUE, GREEN, RED),
    "rgba8": flat(RED, GREEN, BLUE, 9),
    "bgra8": flat(BLUE, GREEN, RED, 9),
    "8UC4": flat(BLUE, GREEN, RED, 9),
    "rgb16": flat(RED, GREEN, BLUE, dtype=np.uint16) * 257,
    "bgr16": flat(BLUE, GREEN, RED, dtype=np.uint16) * 257,
    "rgba16": flat(RED, GREEN, BLUE, 9, dtype=np.uint16) * 257,
    "bgra16": flat(BLUE, GREEN, RED, 9, dtype=np.uint16) * 257,
    **{f"bayer_{p}8": mosaic(p) for p in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{p}16": mosaic(p, np.uint16) * 257 for p in ("rggb", "bggr", "gbrg", "grbg")},
}
GREY = {
    "mono8": flat(GREEN),
    "8UC1": flat(GREEN),
    "mono16": flat(GREEN, dtype=np.uint16) * 257,
}
PURE_RED = {  # BT.601: Y 81, U 90, V 240
    "uyvy": np.tile(np.array([90, 81, 240, 81], np.uint8), (HEIGHT, WIDTH // 2)),
    "yuv422": np.tile(np.array([90, 81, 240, 81], np.uint8), (HEIGHT, WIDTH // 2)),
    "yuyv": np.tile(np.array([81, 90, 81, 240], np.uint8), (HEIGHT, WIDTH // 2)),
    "yuv422_yuy2": np.tile(np.array([81, 90, 81, 240], np.uint8), (HEIGHT, WIDTH // 2)),
    "nv12": planes(90, 240),
    "nv21": planes(240, 90),
}
PLANTED = [
    *((e, p, (RED, GREEN, BLUE), 1) for e, p in COLOURED.items()),
    *((e, p, (GREEN, GREEN, GREEN), 1) for e, p in GREY.items()),
    *((e, p, (255, 0, 0), 3) for e, p in PURE_RED.items()),
]


@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize(("encoding", "pixels", "rgb", "tolerance"), PLANTED)
def test_every_encoding_gives_the_planted_colour(encoding, pixels, rgb, tolerance, padding):
    image = rgb_from_image(message(encoding, pixels, padding=padding))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    inside = image[2:-2, 2:-2].astype(int)  # demosaicing guesses at the border
    assert np.abs(inside - rgb).max() <= tolerance


def test_every_encoding_is_tried_above():
    assert {case[0] for case in PLANTED} == set(BYTES_PER_PIXEL)


def test_an_rgb8_image_is_not_copied():
    msg = message("rgb8", flat(RED, GREEN, BLUE))
    assert np.shares_memory(rgb_from_image(msg), np.frombuffer(msg.data, np.uint8))


def test_big_endian_pixels_are_swapped():
    msg = message("mono16", (flat(GREEN, dtype=np.uint16) * 256).byteswap())
    msg.is_bigendian = 1
    assert np.abs(rgb_from_image(msg).astype(int) - GREEN).max() <= 1


def test_nv12_whose_height_counts_the_chroma_rows_is_understood():
    pixels = planes(90, 240)
    image = rgb_from_image(message("nv12", pixels, height=len(pixels)))
    assert image.shape == (HEIGHT, WIDTH, 3)


def broken(**changes) -> Image:
    msg = message("rgb8", flat(RED, GREEN, BLUE))
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


@pytest.mark.parametrize(
    ("msg", "reason", "words"),
    [
        (broken(encoding="rgb9"), "unknown_encoding", ["rgb8, bgr8", "'rgb9'"]),
        (broken(encoding="32FC1"), "unknown_encoding", ["'32FC1'"]),
        (broken(encoding=""), "unknown_encoding", ["''"]),
        (broken(width=0), "zero_size", ["0x6"]),
        (broken(height=0), "zero_size", ["8x0"]),
        (broken(step=23), "bad_step", ["at least 24", "got 23"]),
        (broken(data=array("B", bytes(143))), "bad_length", ["24 x 6 = 144", "got 143"]),
        (broken(data=array("B", bytes(145))), "bad_length", ["24 x 6 = 144", "got 145"]),
        (broken(data=array("B")), "bad_length", ["got 0"]),
    ],
)
def test_a_message_that_does_not_fit_is_rejected_with_expected_and_got(msg, reason, words):
    with pytest.raises(Rejected) as error:
        rgb_from_image(msg)
    assert error.value.reason == reason
    assert all(word in str(error.value) for word in words)


def test_yuyv_of_an_odd_width_is_rejected():
    msg = Image(encoding="yuyv", width=3, height=2, step=6, data=array("B", bytes(12)))
    with pytest.raises(Rejected) as error:
        rgb_from_image(msg)
    assert error.value.reason == "undecodable"


def compressed(image: np.ndarray, suffix: str, name: str) -> CompressedImage:
    return CompressedImage(format=name, data=cv2.imencode(suffix, image)[1].tobytes())


def test_a_png_comes_out_pixel_by_pixel():
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    msg = compressed(rgb[..., ::-1], ".png", "rgb8; png compressed bgr8")
    assert np.array_equal(rgb_from_compressed(msg), rgb)


def test_a_jpeg_keeps_its_colour_and_a_grey_one_gets_three_channels():
    colour = rgb_from_compressed(compressed(flat(BLUE, GREEN, RED), ".jpg", "jpeg"))
    assert np.abs(colour.astype(int) - (RED, GREEN, BLUE)).max() <= 4
    grey = rgb_from_compressed(compressed(flat(GREEN), ".jpg", "mono8; jpeg compressed"))
    assert np.abs(grey.astype(int) - GREEN).max() <= 2 and grey.shape == (HEIGHT, WIDTH, 3)


def test_a_compressed_mosaic_is_demosaiced():
    msg = compressed(mosaic("rggb"), ".png", "bayer_rggb8; png compressed")
    assert np.array_equal(rgb_from_compressed(msg)[3, 3], (RED, GREEN, BLUE))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("jpeg", b"", "undecodable"),
        ("jpeg", b"not a picture", "undecodable"),
        ("32FC1; compressedDepth png", b"x", "unknown_encoding"),
    ],
)
def test_compressed_data_that_is_no_picture_is_rejected(name, data, reason):
    with pytest.raises(Rejected) as error:
        rgb_from_compressed(CompressedImage(format=name, data=data))
    assert error.value.reason == reason


def test_binning_and_region_of_interest_give_the_camera_of_the_image():
    info = info_message(640, 480, focal=500.0)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 40, 320, 240
    info.binning_x = info.binning_y = 2
    camera = camera_from_info(info)
    assert (camera.width, camera.height) == (160, 120)
    # The pixel pair (219, 220) in the region holds column 319.5 of the sensor, its pixel 109.5.
    assert np.allclose(camera.K, [[250, 0, 109.5], [0, 250, 99.5], [0, 0, 1]])


def test_for_rectified_images_the_projection_matrix_counts():
    info = info_message(64, 48, D=[0.3, 0.1, 0, 0, 0])
    info.p[0], info.p[2], info.p[5], info.p[6] = 80.0, 30.0, 81.0, 20.0
    camera = camera_from_info(info, rectified=True)
    assert not camera.is_distorted
    assert np.array_equal(camera.K, [[80, 0, 30], [0, 81, 20], [0, 0, 1]])


def test_image_message_of_the_test_kit_round_trips():
    rgb = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(rgb_from_image(image_message(rgb)), rgb)


# On a ROS installation, with cv_bridge in place of rosbags


class CvBridgeError(TypeError):
    """As in cv_bridge."""


class CvBridge:
    """imgmsg_to_cv2 as in cv_bridge's core.py; OpenCV stands for what that has in C++."""

    TYPES = {"rgb8": "u1", "bgr8": "u1", "bgra8": "u1", "mono8": "u1", "mono16": "u2"}
    TO_RGB = {
        "bgr8": cv2.COLOR_BGR2RGB,
        "bgra8": cv2.COLOR_BGRA2RGB,
        "mono8": cv2.COLOR_GRAY2RGB,
        "mono16": cv2.COLOR_GRAY2RGB,
    }

    def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
        if img_msg.encoding not in self.TYPES:
            raise CvBridgeError(f"Unrecognized image encoding [{img_msg.encoding}]")
        order = ">" if img_msg.is_bigendian else "<"
        dtype = np.dtype(self.TYPES[img_msg.encoding]).newbyteorder(order)
        channels = {"rgb8": 3, "bgr8": 3, "bgra8": 4}.get(img_msg.encoding, 1)
        shape = (img_msg.height, img_msg.step // dtype.itemsize // channels, channels)
        image = np.ndarray(shape=shape, dtype=dtype, buffer=img_msg.data)
        image = np.ascontiguousarray(image[: img_msg.height, : img_msg.width])
        image = image.astype(dtype.newbyteorder("="))
        if image.dtype == np.uint16:
            image = (image // 257).astype(np.uint8)
        assert desired_encoding == "rgb8"
        code = self.TO_RGB.get(img_msg.encoding)
        return image if code is None else cv2.cvtColor(image, code)


@pytest.fixture
def on_ros(monkeypatch):
    """The module as it is where rosbags is not installed and cv_bridge is."""
    cv_bridge = ModuleType("cv_bridge")
    cv_bridge.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", cv_bridge)
    monkeypatch.setitem(sys.modules, "rosbags.image", None)  # an import of it fails
    path = ROOT / "mde_ros" / "nodes" / "convert.py"
    spec = importlib.util.spec_from_file_location("convert_on_ros", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "bgra8", "8UC4"])
def test_cv_bridge_gives_the_planted_colour_too(on_ros, encoding, padding):
    image = on_ros.rgb_from_image(message(encoding, COLOURED[encoding], padding=padding))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert (image == (RED, GREEN, BLUE)).all()


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big", [False, True])
def test_cv_bridge_gives_the_planted_grey_of_either_byte_order(on_ros, big, padding):
    grey = np.full((HEIGHT, WIDTH), GREEN * 257 + 3, ">u2" if big else "<u2")
    msg = message("mono16", grey, padding=padding)
    msg.is_bigendian = int(big)
    assert (on_ros.rgb_from_image(msg) == GREEN).all()


def test_what_cv_bridge_cannot_decode_is_rejected(on_ros):
    """It knows no nv12; its CvBridgeError is a TypeError."""
    with pytest.raises(on_ros.Rejected) as rejected:
        on_ros.rgb_from_image(message("nv12", planes(90, 240), height=HEIGHT))
    assert rejected.value.reason == "undecodable"
