"""Records refuse what does not fit together, and cameras follow their image."""

import numpy as np
import pytest

from mde_ros.frame import Camera, Frame

K = np.array([[50, 0, 30.2], [0, 55, 25.7], [0, 0, 1.0]])


def pixel_of(camera, point):
    u, v, w = camera.K @ point
    return np.array([u / w, v / w])


def test_resized_camera_sees_a_point_at_the_same_place_of_the_image(camera):
    """Place is measured from the image's corner, -0.5, as fraction of its size."""
    point, other = np.array([0.3, -0.2, 2.0]), camera.resized(160, 36)
    before = (pixel_of(camera, point) + 0.5) / (camera.width, camera.height)
    after = (pixel_of(other, point) + 0.5) / (other.width, other.height)
    assert after == pytest.approx(before)
    assert (other.width, other.height) == (160, 36)


def test_resizing_there_and_back_restores_the_camera(camera):
    back = camera.resized(33, 201).resized(64, 48)
    assert np.allclose(back.K, camera.K, rtol=1e-12)


def test_cropped_camera_sees_a_point_shifted_by_the_corner(camera):
    point = np.array([0.1, 0.2, 1.5])
    moved = pixel_of(camera.cropped(7, 5, 20, 10), point)
    assert moved == pytest.approx(pixel_of(camera, point) - (7, 5))


def test_focal_length_is_the_geometric_mean(camera):
    assert camera.focal_px**2 == pytest.approx(50 * 55)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 65},
        {"height": 47},
        {"K": K + np.eye(3)},
        {"D": np.array([0.1, 0, 0, 0])},
        {"D": np.full(4, 0.1), "distortion_model": "equidistant"},
    ],
)
def test_another_size_or_lens_is_another_camera(camera, change):
    values = {"width": 64, "height": 48, "K": K, **change}
    assert camera.same_as(Camera(64, 48, K.copy()))
    assert not camera.same_as(Camera(**values))
    assert not camera.same_as(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "positive size, got 0x48"),
        ({"K": np.zeros((3, 3))}, "positive focal lengths"),
        ({"K": np.full((3, 3), np.nan)}, "positive focal lengths"),
        ({"K": np.diag([50, -50, 1])}, "positive focal lengths"),
        ({"D": np.array([np.inf, 0, 0, 0])}, "finite distortion"),
        ({"D": np.ones(4), "distortion_model": "fish"}, "plumb_bob.*equidistant, got 'fish'"),
        ({"D": np.ones(3)}, "4, 5, .* coefficients for plumb_bob, got 3"),
        ({"D": np.ones(2), "distortion_model": "equidistant"}, "4 .* for equidistant, got 2"),
    ],
)
def test_impossible_camera_is_refused_with_what_came(values, message):
    with pytest.raises(ValueError, match=message):
        Camera(**{"width": 64, "height": 48, "K": K, **values})


def test_zero_coefficients_of_any_model_are_no_distortion():
    assert not Camera(64, 48, K, np.zeros(3), "whatever").is_distorted


@pytest.mark.parametrize(
    ("image", "points", "message"),
    [
        (np.zeros((48, 64, 3)), None, "uint8 RGB image, got .* float64"),
        (np.zeros((48, 64), np.uint8), None, r"uint8 RGB image, got \(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), None, r"\(48, 64, 4\)"),
        (np.zeros((64, 48, 3), np.uint8), None, "image is 48x64 but its camera is 64x48"),
        (np.zeros((48, 64, 3), np.uint8), np.zeros((4, 2)), r"points \(N, 3\), got \(4, 2\)"),
    ],
)
def test_frame_whose_parts_do_not_fit_is_refused(camera, image, points, message):
    with pytest.raises(ValueError, match=message):
        Frame(image, camera, points)
