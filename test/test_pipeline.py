"""DepthPipeline with networks whose answers are planted: range, scale, lens and LiDAR points."""

import dataclasses
import weakref

import cv2
import numpy as np
import pytest

from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import points_to_depth, rays, undistort_maps
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import ModelSpec


class Planted:
    """A runtime that gives the same maps for every frame and remembers what it was asked."""

    name = device = sha256 = "planted"

    def __init__(self, outputs, **spec):
        self.outputs, self.spec = outputs, ModelSpec(**spec)

    def __call__(self, image, focal_px, sparse=None):
        self.image, self.focal_px, self.sparse = image, focal_px, sparse
        return {k: np.array(v, np.float32) for k, v in self.outputs.items()}


def frame(camera, image=None, points=None):
    if image is None:
        image = np.zeros((camera.height, camera.width, 3), np.uint8)
    return Frame(image, camera, points)


def pinhole(width, height, focal, **lens):
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(width, height, K, **lens)


VALUES = {  # network's answer → depth, for 0.5 … 20 m
    np.nan: 0, np.inf: 0, -np.inf: 0, 0.0: 0, -3.0: 0, 0.499: 0, 0.501: 0.501,
    7.25: 7.25, 19.99: 19.99, 20.01: 0, 3e38: 0,
}  # fmt: skip


@pytest.mark.parametrize("width", [11, 64, 101])
def test_depth_outside_the_range_or_not_a_number_becomes_none(width):
    """Every value at every column, so at every place of a vector register."""
    values = np.array(list(VALUES), np.float32)
    answer = np.stack([np.resize(np.roll(values, k), width) for k in range(48)])
    expected = np.array(list(VALUES.values()), np.float32)[
        [[(i - k) % len(VALUES) for i in range(width)] for k in range(48)]
    ]
    runtime = Planted({"depth": answer}, size=(width, 48))
    pipeline = DepthPipeline(PipelineSettings(min_depth=0.5, max_depth=20.0), runtime)
    depth = pipeline(frame(pinhole(width, 48, 60))).depth
    assert depth.dtype == np.float32
    assert np.array_equal(depth, expected)


@pytest.mark.parametrize("value", VALUES)
def test_one_bad_value_is_found_in_a_map_of_good_ones(value):
    """The passes over the image are saved only where the network's map needs none of them."""
    maps = {"depth": np.full((24, 32), 3.0), "uncertainty": np.full((24, 32), 0.5)}
    maps["depth"][7, 11] = value
    pipeline = DepthPipeline(
        PipelineSettings(min_depth=0.5, max_depth=20.0), Planted(maps, size=(32, 24))
    )
    prediction = pipeline(frame(pinhole(32, 24, 30)))
    expected = np.full((24, 32), 3.0, np.float32)
    expected[7, 11] = VALUES[value]
    assert np.array_equal(prediction.depth, expected)
    assert np.array_equal(prediction.uncertainty, np.where(expected > 0, np.float32(0.5), 0))


def test_bad_pixels_of_the_network_never_reach_the_image_as_numbers(camera):
    answer = np.full((24, 32), 3.0)
    answer[5, 5], answer[9, 9] = np.nan, np.inf
    depth = DepthPipeline(PipelineSettings(), Planted({"depth": answer}))(frame(camera)).depth
    assert depth.shape == (48, 64)
    assert set(np.unique(depth)) == {0.0, 3.0}
    assert 0 < (depth == 0).sum() <= 2 * 4 * 4


def test_range_follows_settings_replaced_while_running(camera):
    pipeline = DepthPipeline(PipelineSettings(), Planted({"depth": np.full((24, 32), 3.0)}))
    assert (pipeline(frame(camera)).depth == 3).all()
    pipeline.settings = dataclasses.replace(pipeline.settings, max_depth=2.0)
    assert (pipeline(frame(camera)).depth == 0).all()


def test_answers_are_laid_over_the_image_corner_to_corner(camera):
    """A ramp over half-size pixel centres is the same ramp over the image's, away from the edge."""
    coarse = np.arange(32) * 2 + 0.5 + 10
    pipeline = DepthPipeline(PipelineSettings(), Planted({"depth": np.tile(coarse, (24, 1))}))
    depth = pipeline(frame(camera)).depth
    assert depth[20, 1:-1] == pytest.approx(np.arange(64)[1:-1] + 10.0, abs=1e-5)


def test_other_maps_come_along_at_the_image_size(camera):
    maps = {
        "depth": np.ones((4, 4)),
        "uncertainty": np.full((4, 4), 0.3),
        "saliency": np.ones((4, 4)),
    }
    prediction = DepthPipeline(PipelineSettings(), Planted(maps))(frame(camera))
    assert prediction.uncertainty.shape == prediction.saliency.shape == (48, 64)
    assert prediction.uncertainty == pytest.approx(np.full((48, 64), 0.3, np.float32))


DOMAINS = {"depth": np.full((4, 4), 7.0), "domain": 1}
DOMAINS["depth_each"] = np.arange(1.0, 4)[:, None, None] * np.ones((4, 4))
DOMAINS["uncertainty_each"] = DOMAINS["depth_each"] / 10


def test_lifelong_model_gives_the_maps_of_the_domain_that_the_switch_chose(camera):
    runtime = Planted(DOMAINS | {"distances": [3.0, 2.0, 4.0]}, domains=("a", "b", "c"))
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    asked = []
    for distances in ([3.0, 2.0, 4.0], *[[1.0, 2.0, 4.0]] * 6):
        runtime.outputs["distances"] = distances
        asked.append(pipeline(frame(camera)))
    assert [p.domain for p in asked] == ["b"] * 5 + ["a"] * 2
    assert [p.domain_distance for p in asked] == [2.0] * 5 + [1.0] * 2
    for p in asked:
        metres = {"a": 1.0, "b": 2.0}[p.domain]
        assert (p.depth == metres).all() and p.depth.shape == (48, 64)
        assert p.uncertainty == pytest.approx(metres / 10)


def test_domain_that_is_named_is_taken_and_one_that_the_model_lacks_is_refused(camera):
    runtime = Planted(DOMAINS | {"distances": [3.0, 2.0, 4.0]}, domains=("a", "b", "c"))
    prediction = DepthPipeline(PipelineSettings(domain="c"), runtime)(frame(camera))
    assert (prediction.depth == 3).all() and prediction.domain_distance == 4.0
    with pytest.raises(ConfigError, match="one of auto, a, b, c, got 'd'"):
        DepthPipeline(PipelineSettings(domain="d"), runtime)
    plain = Planted({"depth": np.ones((4, 4))})
    assert DepthPipeline(PipelineSettings(), plain)(frame(camera)).domain is None
    with pytest.raises(ConfigError, match="expected auto, the model has no domains"):
        DepthPipeline(PipelineSettings(domain="c"), plain)


def test_network_is_told_the_focal_length_at_its_own_size(camera):
    runtime = Planted({"depth": np.ones((4, 4))}, size=(32, 12))
    DepthPipeline(PipelineSettings(), runtime)(frame(camera))
    assert runtime.image.shape == (12, 32, 3)
    assert runtime.focal_px == pytest.approx(np.sqrt(50 / 2 * 55 / 4))


def test_free_size_keeps_the_aspect_ratio_of_each_camera():
    runtime = Planted({"depth": np.ones((4, 4))}, pixels=4096, multiple=8)
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    for size, network in (((640, 480), (72, 56)), ((480, 640), (56, 72)), ((100, 25), (128, 32))):
        assert pipeline(frame(pinhole(*size, 60))).depth.shape == size[::-1]
        assert runtime.image.shape[1::-1] == network


@pytest.mark.parametrize("focal", [60.0, 120.0])
def test_same_scene_with_half_the_focal_length_gives_the_same_metres(foreign_onnx, focal):
    """The network knows a square of 0.5 m: canonical depth = f_c · 0.5 / its side in pixels."""
    canonical, pixels = 80.0, 64 * 48
    nodes = [
        ("Slice", ["x", [0], [1], [1]], ["red"]),
        ("ReduceMean", ["red"], ["area"], {"axes": [1, 2, 3]}),
        ("Sqrt", ["area"], ["side"]),
        ("Reciprocal", ["side"], ["inverse"]),
        ("Mul", ["inverse", canonical * 0.5 / np.sqrt(pixels)], ["depth"]),
        ("Mul", ["red", 0.0], ["zero"]),
        ("Add", ["zero", "depth"], ["y"]),
    ]
    path = foreign_onnx(nodes, f"size: [64, 48]\nfocal_px: {canonical}\n")
    image = np.zeros((96, 128, 3), np.uint8)
    side = int(focal * 0.5 / 1.5)  # a square of 0.5 m at 1.5 m
    image[8 : 8 + side, 20 : 20 + side] = 255
    pipeline = DepthPipeline(PipelineSettings(model=str(path), device="cpu"))
    depth = pipeline(frame(pinhole(128, 96, focal), image)).depth
    assert depth == pytest.approx(np.full((96, 128), 1.5, np.float32), rel=1e-3)


LENS = {"D": np.array([-0.3, 0.08, 0.001, -0.001]), "distortion_model": "plumb_bob"}


def test_network_sees_a_straight_line_where_the_lens_bent_it():
    """A line at y = -0.4 m, z = 1 m, drawn through OpenCV's lens; its row in the ideal image."""
    camera = pinhole(160, 120, 110, **LENS)
    line = np.stack([np.linspace(-0.6, 0.6, 400), np.full(400, -0.4), np.ones(400)], 1)
    bent = cv2.projectPoints(line, np.zeros(3), np.zeros(3), camera.K, camera.D)[0]
    image = np.zeros((120, 160, 3), np.uint8)
    cv2.polylines(image, [np.rint(bent * 8).astype(np.int32)], False, (255,) * 3, 3, cv2.LINE_AA, 3)
    runtime = Planted({"depth": np.ones((4, 4))}, size=(160, 120))
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    pipeline(frame(camera, image))
    rows = np.arange(120)[:, None]

    def centre(picture):
        weights = picture[..., 0].astype(float)[:, 20:140]
        return (weights * rows).sum(0) / weights.sum(0)

    row = 110 * -0.4 + 59.5
    assert np.ptp(centre(image)) > 2, "the lens must bend visibly, or nothing is tested"
    assert centre(runtime.image) == pytest.approx(np.full(120, row), abs=0.3)
    assert np.array_equal(pipeline.rectify(frame(camera, image)), runtime.image)


def test_depth_belongs_to_the_camera_without_its_lens():
    camera = pinhole(160, 120, 110, **LENS)
    ideal = DepthPipeline(PipelineSettings(), Planted({})).output_camera(camera)
    assert not ideal.is_distorted and np.array_equal(ideal.K, camera.K)
    assert (ideal.width, ideal.height) == (160, 120)


WIDE = {"D": np.array([0.25, 0.02, 0.001, -0.002]), "distortion_model": "plumb_bob"}


@pytest.mark.parametrize("where", ["network", "image"])
def test_nothing_is_said_about_what_the_lens_does_not_show(where):
    """Each pixel's ray through OpenCV's lens: beyond the outermost pixel centres nobody looked."""
    camera = pinhole(160, 120, 90, **WIDE)
    size = (160, 120) if where == "image" else (40, 30)
    maps = {name: np.full(size[::-1], 2.0) for name in ("depth", "uncertainty", "saliency")}
    prediction = DepthPipeline(PipelineSettings(), Planted(maps, size=size))(frame(camera))
    points = rays(camera).reshape(-1, 3).astype(np.float64)
    bent = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, camera.D)[0]
    beyond = np.maximum(-bent, bent - (159, 119)).max(-1).reshape(120, 160)
    sure = abs(beyond) > 1 / 32  # the step of OpenCV's fixed-point maps
    expected = np.where(beyond > 0, 0.0, 2.0)[sure]
    assert 0.02 < (beyond > 0).mean() < 0.9 and sure.mean() > 0.99
    assert np.array_equal(prediction.depth[sure], expected)
    assert np.array_equal(prediction.uncertainty[sure], expected)
    assert (prediction.saliency == 2).all()


def test_lens_that_fills_the_whole_image_costs_no_mask(camera):
    pipeline = DepthPipeline(PipelineSettings(), Planted({}))
    assert pipeline.optics(camera).seen is None
    assert pipeline.optics(pinhole(160, 120, 110, **LENS)).seen is None


def test_uncertainty_is_none_where_depth_is():
    depth = np.full((24, 32), 3.0)
    depth[:12] = 90.0
    maps = {"depth": depth, "uncertainty": np.full((24, 32), 0.5)}
    pipeline = DepthPipeline(PipelineSettings(), Planted(maps, size=(32, 24)))
    prediction = pipeline(frame(pinhole(32, 24, 30)))
    assert np.array_equal(prediction.uncertainty, np.where(depth == 3, 0.5, 0))


def test_pixel_without_inverse_depth_does_not_bring_its_neighbours_nearer(foreign_onnx):
    """Doubled in size, one pixel of 0 among 1/4 m must leave 4 m or none, nothing between."""
    text = "output: inverse_depth\nscale: 1.0\nsize: [32, 24]\n"
    path = foreign_onnx(
        [("Slice", ["x", [0], [1], [1]], ["red"]), ("Mul", ["red", 1 / 400], ["y"])], text
    )
    image = np.full((48, 64, 3), 100, np.uint8)
    image[20:22, 30:32] = 0
    pipeline = DepthPipeline(PipelineSettings(model=str(path), device="cpu"))
    depth = pipeline(frame(pinhole(64, 48, 60), image)).depth
    assert (depth[20:22, 30:32] == 0).all() and (depth == 0).sum() <= 16
    assert depth[depth > 0] == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize(("width", "averaged"), [(256, False), (512, True), (1024, True)])
def test_large_images_are_averaged_and_others_interpolated(width, averaged):
    """White noise: a mean of n pixels has 1/sqrt(n) of its deviation; two by two is the least."""
    height = width * 3 // 4
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    runtime = Planted({"depth": np.ones((4, 4))}, size=(128, 96))
    DepthPipeline(PipelineSettings(), runtime)(frame(pinhole(width, height, 60), image))
    expected = 256 / np.sqrt(12) / (width / 128 if averaged else 2)
    assert runtime.image.std() == pytest.approx(expected, rel=0.03)


def test_rectified_image_is_made_once_per_frame_and_let_go_with_the_next():
    camera = pinhole(160, 120, 110, **LENS)
    pipeline = DepthPipeline(PipelineSettings(), Planted({"depth": np.ones((4, 4))}))
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    first, second = frame(camera, image), frame(camera, image[::-1].copy())
    pipeline(first)
    once = pipeline.rectify(first)
    assert pipeline.rectify(first) is once
    assert np.array_equal(once, cv2.remap(image, *undistort_maps(camera), cv2.INTER_LINEAR))
    assert not np.array_equal(pipeline.rectify(second), once)
    gone = weakref.ref(first)
    del first
    assert gone() is None


def test_image_without_distortion_is_not_touched(camera):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    seen = frame(camera, image)
    assert DepthPipeline(PipelineSettings(), Planted({})).rectify(seen) is image


def test_points_are_projected_at_the_network_size_and_the_nearest_wins():
    """One line of returns stays one row of pixels; two in one pixel leave the nearer."""
    camera = pinhole(160, 120, 110, **LENS)
    x = np.linspace(-0.8, 0.8, 500)
    points = np.stack([x, np.full(500, 0.2), np.full(500, 2.0)], 1).astype(np.float32)
    points = np.concatenate([points, points * 2])  # the same rays, twice as far
    runtime = Planted({"depth": np.ones((4, 4))}, size=(40, 30), takes_points=True)
    DepthPipeline(PipelineSettings(), runtime)(frame(camera, points=points))
    assert runtime.sparse.shape == (30, 40)
    row = round(((110 * 0.1 + 59.5) + 0.5) / 4 - 0.5)
    assert np.unique(np.nonzero(runtime.sparse)[0]).tolist() == [row]
    assert set(np.unique(runtime.sparse)) == {0.0, 2.0}
    ideal = camera.undistorted().resized(40, 30)
    assert np.array_equal(runtime.sparse, points_to_depth(points, ideal))


def test_completion_without_points_gets_an_empty_map_and_depth_none_at_all(camera):
    runtime = Planted({"depth": np.ones((4, 4))}, size=(40, 30), takes_points=True)
    DepthPipeline(PipelineSettings(), runtime)(frame(camera))
    assert runtime.sparse.shape == (30, 40) and not runtime.sparse.any()
    runtime = Planted({"depth": np.ones((4, 4))}, size=(40, 30))
    DepthPipeline(PipelineSettings(), runtime)(frame(camera, points=np.ones((5, 3), np.float32)))
    assert runtime.sparse is None


def test_camera_that_changes_in_mid_stream_gets_optics_of_its_own():
    runtime = Planted({"depth": np.full((4, 4), 2.0)})
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    first, bent = pinhole(64, 48, 60), pinhole(64, 48, 60, **LENS)
    assert pipeline.optics(first) is pipeline.optics(pinhole(64, 48, 60))
    assert pipeline.optics(first).maps is None and pipeline.optics(bent).maps is not None
    for camera in (first, pinhole(32, 48, 60), first):
        assert pipeline(frame(camera)).depth.shape == (camera.height, camera.width)


def test_prediction_stays_as_it_is_when_the_next_frame_comes(camera):
    """Also where network and image are of one size and nothing needs resizing."""
    runtime = Planted({"depth": np.full((48, 64), 2.0)}, size=(64, 48))
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    depth = pipeline(frame(camera)).depth
    runtime.outputs = {"depth": np.full((48, 64), 5.0)}
    pipeline(frame(camera))
    assert (depth == 2).all()


def test_checkpoint_and_its_export_give_the_same_depth_of_a_frame(students):
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    seen = frame(pinhole(64, 48, 60, **LENS), cv2.GaussianBlur(image, (0, 0), 2))
    one, two = (
        DepthPipeline(PipelineSettings(model=str(p), device="cpu", threads=1))(seen).depth
        for p in students["fast_mobilenet_v2"]
    )
    assert one == pytest.approx(two, rel=1e-4) and (one > 0).any()
