"""Augmentations move image, depth and camera together; colours follow the published formulas."""

import dataclasses

import cv2
import numpy as np
import pytest

from mde_ros.datasets import transforms
from mde_ros.datasets.transforms import View
from mde_ros.frame import Camera

CAMERA = Camera(160, 120, np.array([[130, 0, 76.0], [0, 130, 61.0], [0, 0, 1.0]]))
# Three points inside every window the transforms below may choose, each with a colour of its own.
POINTS = np.array([[-0.10, -0.08, 1.5], [0.12, -0.05, 2.0], [0.0, 0.15, 2.5]])


class Chosen:
    """An rng whose uniform() and random() are chosen; the rest is fixed."""

    def __init__(self, uniform, random=0.9):
        self.values, self.chance = list(uniform), random

    def uniform(self, low=0.0, high=1.0):
        return low + self.values.pop(0) * (high - low)

    def random(self):
        return self.chance


@pytest.fixture
def planted():
    """A soft dot per point, each in its colour channel, upon depth that is known around it."""
    v, u = np.mgrid[:120, :160]
    image = np.zeros((120, 160, 3), np.float32)
    truth = np.full((120, 160), 9.0, np.float32)
    for channel, (x, y, z) in enumerate(POINTS):
        cu, cv = 130 * x / z + 76, 130 * y / z + 61
        squared = (u - cu) ** 2 + (v - cv) ** 2
        image[..., channel] = 250 * np.exp(-squared / 18)
        truth[squared < 36] = z
    return View(image.round().astype(np.uint8), truth, truth * 2, CAMERA)


def found(view):
    """The three points as image, depth and camera of a view tell them."""
    v, u = np.mgrid[: view.camera.height, : view.camera.width]
    points = []
    for channel in range(3):
        weight = np.where(view.image[..., channel] > 40, view.image[..., channel], 0).astype(float)
        cu, cv = (weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()
        z = view.truth_m[round(cv), round(cu)]
        assert view.teacher_m[round(cv), round(cu)] == 2 * z
        K = view.camera.K
        points.append([(cu - K[0, 2]) / K[0, 0] * z, (cv - K[1, 2]) / K[1, 1] * z, z])
    return np.array(points)


def same(view):
    return view


TRANSFORMS = {
    "nothing": same,
    "flip": lambda v: transforms.flip(v, Chosen([], 0.9)),
    "no flip": lambda v: transforms.flip(v, Chosen([], 0.1)),
    "rotate": lambda v: transforms.rotate(v, Chosen([0.95])),
    "centre crop": lambda v: transforms.centre_crop(v, 121, 90),
    "whole, larger": lambda v: transforms.crop_resize(v, Chosen([1, 0, 0]), 320, 240),
    "window, smaller": lambda v: transforms.crop_resize(v, Chosen([0.8, 0.6, 0.4]), 120, 90),
    "window of another aspect": lambda v: transforms.crop_resize(
        v, Chosen([0.9, 0.6, 0.5]), 96, 96
    ),
    "rolled window": lambda v: transforms.crop_resize(
        v, Chosen([0.85, 0.5, 0.5, 0.9]), 140, 100, degrees=6
    ),
    "all of the NYU set": lambda v: transforms.centre_crop(
        transforms.rotate(transforms.flip(v, Chosen([], 0.9)), Chosen([0.1])), 130, 100
    ),
    "all of distillation": lambda v: transforms.flip(
        transforms.crop_resize(v, Chosen([0.9, 0.4, 0.6, 0.2]), 152, 114, degrees=4), Chosen([], 1)
    ),
}
STRAIGHT = ("nothing", "no flip", "centre crop", "whole, larger", "window, smaller")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_planted_points_stay_where_they_are_in_space(planted, name):
    """But for a roll about the axis and a mirror: distances in the plane and depths are kept."""
    view = TRANSFORMS[name](planted)
    after = found(view)
    assert view.image.shape[:2] == view.truth_m.shape == (view.camera.height, view.camera.width)
    assert np.array_equal(after[:, 2], POINTS[:, 2])
    gram = after[:, :2] @ after[:, :2].T
    assert gram == pytest.approx(POINTS[:, :2] @ POINTS[:, :2].T, abs=2e-3)
    if name in STRAIGHT:
        assert after == pytest.approx(POINTS, abs=5e-3)


def test_flip_mirrors_points_and_the_principal_point(planted):
    view = transforms.flip(planted, Chosen([], 0.9))
    assert found(view) == pytest.approx(POINTS * [-1, 1, 1], abs=5e-3)
    assert view.camera.K[0, 2] == 160 - 1 - 76 and view.camera.K[1, 2] == 61
    assert np.array_equal(view.image, planted.image[:, ::-1])


def test_window_of_half_the_width_doubles_the_focal_length(planted):
    view = transforms.crop_resize(planted, Chosen([0.0, 0.5, 0.5]), 160, 120, smallest=0.5)
    assert view.camera.focal_px == pytest.approx(260)
    assert transforms.crop_resize(planted, Chosen([1, 0, 0]), 160, 120).camera.same_as(CAMERA)


def test_pixels_from_outside_are_black_and_have_no_depth(planted):
    view = transforms.rotate(
        dataclasses.replace(planted, image=planted.image | 1), Chosen([1.0]), degrees=20
    )
    outside = view.truth_m == 0
    assert 0.02 < outside.mean() < 0.5 and np.array_equal(outside, view.teacher_m == 0)
    inner = cv2.dilate(outside.astype(np.uint8), np.ones((3, 3))) == 0
    assert (view.image[inner] > 0).all()
    assert (view.image[cv2.erode(outside.astype(np.uint8), np.ones((3, 3))) == 1] == 0).all()


def test_depth_is_never_mixed_between_near_and_far(planted):
    for change in TRANSFORMS.values():
        assert set(np.unique(change(planted).truth_m)) <= {0.0, 1.5, 2.0, 2.5, 9.0}


def test_crop_larger_than_the_image_is_refused(planted):
    with pytest.raises(ValueError, match="expected at least 200x100, got 160x120"):
        transforms.centre_crop(planted, 200, 100)


@pytest.mark.parametrize("seed", range(4))
def test_window_always_lies_inside_the_image(planted, seed):
    full = View(np.full((120, 160, 3), 200, np.uint8), planted.truth_m, planted.teacher_m, CAMERA)
    view = transforms.crop_resize(full, np.random.default_rng(seed), 90, 96)
    assert (view.image == 200).all() and (view.truth_m > 0).all()


def test_lighting_adds_the_published_combination_of_colours():
    """One α of 1 on the first axis alone: rgb += 0.2175 · first eigenvector."""

    class FirstAxis:
        def normal(self, mean, sigma, n):
            assert (mean, sigma, n) == (0, 0.1, 3)
            return np.array([1.0, 0, 0])

    image = np.full((2, 2, 3), 0.5, np.float32)
    change = transforms.lighting(image, FirstAxis())[0, 0] - 0.5
    assert change == pytest.approx(0.2175 * np.array([-0.5675, -0.5808, -0.5836]), abs=1e-6)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_jitter_moves_towards_black_the_mean_grey_or_the_grey(kind):
    class Only:
        def permutation(self, n):
            return [kind]

        def uniform(self, low, high):
            assert (low, high) == (-0.4, 0.4)
            return 0.25

    image = np.random.default_rng(0).random((5, 6, 3), np.float32)
    grey = image @ np.array([0.299, 0.587, 0.114])
    reference = [0, grey.mean(), grey[..., None]][kind]
    expected = image + 0.25 * (reference - image)
    assert transforms.jitter(image, Only()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_camera_look_gives_an_image_of_the_same_kind_and_the_same_for_the_same_seed(planted, seed):
    a, b = (
        transforms.camera_look(planted.image.copy(), np.random.default_rng(seed)) for _ in range(2)
    )
    assert a.shape == planted.image.shape and a.dtype == np.uint8
    assert np.array_equal(a, b)


def test_camera_look_changes_pictures_but_seldom_beyond_recognition():
    """Correlation with the original stays high; over seeds, pictures differ."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 20, 235, cv2.NORM_MINMAX)
    looks = [transforms.camera_look(image, np.random.default_rng(s)) for s in range(30)]
    grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).ravel().astype(float) for x in (image, *looks)]
    correlation = [np.corrcoef(grey[0], g)[0, 1] for g in grey[1:]]
    assert np.median(correlation) > 0.9
    assert sum(not np.array_equal(image, x) for x in looks) > 20
