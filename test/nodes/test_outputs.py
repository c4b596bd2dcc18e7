"""Predictions that go out: values bit for bit, hand-computed points, without any node."""

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from mde_ros.config import NodeSettings
from mde_ros.frame import Camera, Prediction
from mde_ros.nodes.outputs import Outputs


def outputs(width: int = 4, height: int = 3, **settings) -> Outputs:
    K = np.array([[10.0, 0, 1.5], [0, 20.0, 1.0], [0, 0, 1]])
    return Outputs(Camera(width, height, K), NodeSettings(**settings))


def no_image() -> np.ndarray:
    raise AssertionError("the image was not needed")


HEADER = Header(frame_id="cam")


def test_metres_go_out_bit_for_bit_and_none_as_nan():
    depth = np.random.default_rng(0).uniform(0.1, 80, (3, 4)).astype(np.float32)
    depth[1, 2] = 0
    msg = outputs().depth(HEADER, Prediction(depth), no_image)
    assert (msg.encoding, msg.width, msg.height, msg.step) == ("32FC1", 4, 3, 16)
    out = np.frombuffer(msg.data, np.uint32).reshape(3, 4)
    same = np.ones((3, 4), bool)
    same[1, 2] = False
    assert np.array_equal(out[same], depth.view(np.uint32)[same])
    assert np.isnan(out.view(np.float32)[1, 2])


def test_millimetres_are_rounded_and_what_does_not_fit_is_none():
    depth = np.float32([[0, 1.2344, 1.2346, 0.1], [65.535, 65.6, 80, 2], [9, 10, 11, 12]])
    msg = outputs(depth_encoding="16UC1").depth(HEADER, Prediction(depth), no_image)
    assert (msg.encoding, msg.step) == ("16UC1", 8)
    expected = [[0, 1234, 1235, 100], [65535, 0, 0, 2000], [9000, 10000, 11000, 12000]]
    assert np.frombuffer(msg.data, np.uint16).reshape(3, 4).tolist() == expected


def test_uncertainty_goes_out_in_metres_and_as_nan_where_there_is_no_depth():
    depth = np.float32([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 0]])
    uncertainty = np.where(depth > 0, depth / 7, 0).astype(np.float32)
    msg = outputs().uncertainty(HEADER, Prediction(depth, uncertainty), no_image)
    assert (msg.encoding, msg.width, msg.height, msg.step) == ("32FC1", 4, 3, 16)
    out = np.frombuffer(msg.data, np.float32).reshape(3, 4)
    assert np.array_equal(out, np.where(depth > 0, uncertainty, np.nan), equal_nan=True)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_points_are_the_unprojected_pixels_of_every_nth_row_and_column(stride):
    depth = np.random.default_rng(1).uniform(1, 5, (3, 4)).astype(np.float32)
    depth[0, 0] = 0
    msg = outputs(point_stride=stride, point_colour=False).points(
        HEADER, Prediction(depth), no_image
    )
    height, width = -(-3 // stride), -(-4 // stride)
    assert (msg.height, msg.width, msg.point_step) == (height, width, 16)
    assert msg.row_step == 16 * width and len(msg.data) == 16 * width * height
    assert not msg.is_dense
    assert [(f.name, f.offset, f.datatype, f.count) for f in msg.fields] == [
        (name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate("xyz")
    ]
    points = np.frombuffer(msg.data, np.float32).reshape(height, width, 4)
    for row in range(height):
        for column in range(width):
            v, u = row * stride, column * stride
            z = depth[v, u] or np.nan
            expected = ((u - 1.5) / 10 * z, (v - 1.0) / 20 * z, z)
            assert np.allclose(points[row, column, :3], expected, rtol=1e-6, equal_nan=True)


def test_coloured_points_carry_blue_green_red_in_that_order():
    rgb = np.random.default_rng(2).integers(0, 256, (3, 4, 3), np.uint8)
    msg = outputs(point_stride=2).points(
        HEADER, Prediction(np.ones((3, 4), np.float32)), lambda: rgb
    )
    assert (msg.point_step, msg.fields[3].name, msg.fields[3].offset) == (32, "rgb", 16)
    assert msg.fields[3].datatype == PointField.FLOAT32
    points = np.frombuffer(msg.data, np.uint8).reshape(2, 2, 32)
    assert np.array_equal(points[..., 16:19], rgb[::2, ::2, ::-1])
    assert not points[..., 19].any()
    assert np.array_equal(points[..., 8:12].copy().view(np.float32)[..., 0], np.ones((2, 2)))


def test_colours_run_from_red_over_green_to_blue_and_none_is_black():
    depth = np.float32([[0, 0.1, 5, 10], [80, 0.1, 5, 0], [0, 0, 0, 0]])
    msg = outputs(colour_max_depth=10.0).colour(HEADER, Prediction(depth), no_image)
    assert (msg.encoding, msg.step) == ("bgr8", 12)
    bgr = np.frombuffer(msg.data, np.uint8).reshape(3, 4, 3).astype(int)
    assert not bgr[depth == 0].any()
    assert bgr[depth > 0].any(axis=-1).all()
    assert [int(np.argmax(bgr[0, i])) for i in (1, 2, 3)] == [2, 1, 0]
    assert np.array_equal(bgr[1, 0], bgr[0, 3])  # beyond the end looks like the end


def test_a_message_is_refilled_not_made_anew():
    out = outputs()
    first = out.depth(HEADER, Prediction(np.ones((3, 4), np.float32)), no_image)
    twos = Prediction(np.full((3, 4), 2, np.float32))
    second = out.depth(Header(frame_id="b"), twos, no_image)
    assert first is second and second.header.frame_id == "b"
    assert np.frombuffer(second.data, np.float32).tolist() == [2.0] * 12
