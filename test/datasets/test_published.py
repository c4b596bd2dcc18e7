"""The published preprocessing, against Pillow (which the authors used) and plain slices."""

import numpy as np
import pytest

from mde_ros.datasets import DatasetError, Sample, published
from mde_ros.datasets.transforms import View, resize
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import points_to_depth, unproject

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def smooth(height, width, seed=0):
    """A soft random image, and depth that is another at every pixel."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
    depth = random.permutation(height * width).reshape(height, width) / 1000 + 0.5
    return image, depth.astype(np.float32)


def view_of(height, width):
    image, depth = smooth(height, width)
    K = np.array([[518.9, 0, width / 2 + 5], [0, 519.5, height / 2 - 7], [0, 0, 1]])
    return View(image, depth, depth * 2, Camera(width, height, K))


class Still:
    """An rng that neither mirrors nor rolls nor changes a colour; crops begin at `left`."""

    def __init__(self, left=0, mirror=False):
        self.left, self.mirror = left, mirror

    def random(self):
        return 0.9 if self.mirror else 0.1

    def uniform(self, low, high):
        return 0.0

    def normal(self, mean, sigma, n):
        return np.zeros(n)

    def permutation(self, n):
        return np.arange(n)

    def integers(self, high):
        self.high = high
        return self.left


def by_pillow(image, depth, mirror):
    """Short side 240, mirror, centre 304x228, as the authors write it."""
    width, height = image.shape[1], image.shape[0]
    size = (round(width * 240 / height), 240)
    left, top = round((size[0] - 304) / 2), round((240 - 228) / 2)
    out = []
    for array, how in ((image, Image.BILINEAR), (depth, Image.NEAREST)):
        picture = Image.fromarray(array).resize(size, how)
        if mirror:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        out.append(np.asarray(picture.crop((left, top, left + 304, top + 228))))
    return out


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("name", ["nyu", "scannet"])
@pytest.mark.parametrize("size", [(480, 640), (720, 960)])
def test_indoor_sets_are_resized_and_cropped_as_by_pillow(name, size, mirror):
    view = view_of(*size)
    out = published.TRAINING[name](view, Still(mirror=mirror), 304, 228)
    image, depth = by_pillow(view.image, view.truth_m, mirror)
    assert np.array_equal(out.truth_m, depth) and np.array_equal(out.teacher_m, 2 * depth)
    assert out.image.shape == (228, 304, 3) and out.image.dtype == np.float32
    assert np.abs(out.image - image).max() < 4  # their filter is a triangle, ours a box


def test_only_nyu_is_rolled():
    class Rolls(Still):
        def uniform(self, low, high):
            return high if (low, high) == (-5, 5) else 0.0

    view = view_of(480, 640)
    for name, corners in (("nyu", True), ("scannet", False), ("kitti", False)):
        out = published.TRAINING[name](view, Rolls(), 304, 228)
        assert bool((out.truth_m == 0).any()) == corners


@pytest.mark.parametrize("left", [0, 17, 762])
def test_kitti_is_a_slice_along_the_bottom(left):
    view, rng = view_of(375, 1242), Still(left, mirror=True)
    out = published.kitti(view, rng)
    assert rng.high == 1242 - 480 + 1  # columns 0 to 762, each as likely
    assert np.array_equal(out.image, view.image[55:, left : left + 480][:, ::-1])
    assert np.array_equal(out.truth_m, view.truth_m[55:, left : left + 480][:, ::-1])
    cx = view.camera.K[0, 2] - left
    assert out.camera.K[0, 2] == 479 - cx and out.camera.K[1, 2] == view.camera.K[1, 2] - 55


def test_colours_are_lit_then_jittered_and_not_clamped():
    class Bright(Still):
        def normal(self, mean, sigma, n):
            return np.array([1.0, 0, 0])

        def uniform(self, low, high):
            return -0.4 if (low, high) == (-0.4, 0.4) else 0.0

        def permutation(self, n):
            return [0]  # brightness alone: x (1 - a)

    view = view_of(240, 320)
    out = published.colours(view, Bright())
    first_axis = 0.2175 * np.array([-0.5675, -0.5808, -0.5836])
    expected = (view.image / 255 + first_axis) * 1.4 * 255
    assert np.abs(out.image - expected).max() < 1e-3
    assert out.image.max() > 255 or out.image.min() < 0


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_resized_views_are_seen_by_the_resized_camera(factor):
    """A plane's depth, resized, is the depth that the resized camera sees of the plane."""
    camera = Camera(64, 48, np.array([[60, 0, 30.0], [0, 61, 25.0], [0, 0, 1]]))

    def plane(c):
        v, u = np.mgrid[: c.height, : c.width]
        x, y = (u - c.K[0, 2]) / c.K[0, 0], (v - c.K[1, 2]) / c.K[1, 1]
        return (1 / (0.3 + 0.2 * x - 0.1 * y)).astype(np.float32)

    depth = plane(camera)
    view = View(np.zeros((48, 64, 3), np.uint8), depth, depth, camera)
    out = resize(view, round(64 * factor), round(48 * factor))
    steps = np.abs(np.diff(depth, axis=1)).max() + np.abs(np.diff(depth, axis=0)).max()
    assert np.abs(out.truth_m - plane(out.camera)).max() <= steps / 2 + 1e-5


class Frames:
    """A data set of one sample."""

    name = "one"

    def __init__(self, height, width, **more):
        view = view_of(height, width)
        depth = np.where(view.truth_m > 100, 0, view.truth_m)
        points = unproject(depth, view.camera)[depth > 0]
        frame = Frame(view.image, view.camera, points, 7)
        self.sample = Sample(frame, depth, "one/0", **more)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return [self.sample][index]

    def __iter__(self):
        return iter([self.sample])


def test_tests_of_nyu_keep_truth_of_the_crop_and_change_no_colour():
    data = Frames(480, 640, moving=np.arange(640) > np.zeros((480, 1)) + 320)
    (out,) = published.Prepared(data, "nyu")
    image, depth = by_pillow(data.sample.frame.image, data.sample.truth_m, False)
    assert out.frame.image.dtype == np.uint8
    assert np.abs(out.frame.image.astype(int) - image).max() < 4
    assert np.array_equal(out.truth_m, depth)
    moving = by_pillow(data.sample.frame.image, data.sample.moving.astype(np.float32), False)[1]
    assert np.array_equal(out.moving, moving > 0)
    assert (out.name, out.frame.stamp_ns) == ("one/0", 7)


def test_tests_of_kitti_are_the_middle_of_the_bottom_and_points_stay_where_they_are():
    data = Frames(375, 1242)
    out = published.Prepared(data, "kitti")[0]
    assert np.array_equal(out.frame.image, data.sample.frame.image[23:, 13:1229])
    assert np.array_equal(out.truth_m, data.sample.truth_m[23:, 13:1229])
    seen = points_to_depth(out.frame.points, out.frame.camera)
    assert np.abs(seen - out.truth_m).max() < 1e-4
    assert out.moving is None


def test_what_cannot_be_prepared_is_named():
    with pytest.raises(DatasetError, match="expected one of nyu, scannet, kitti, got 'sun'"):
        published.Prepared(Frames(48, 64), "sun")
    with pytest.raises(DatasetError, match="one/0: crop: expected at least 1216x352, got 1000x375"):
        published.Prepared(Frames(375, 1000), "kitti")[0]
