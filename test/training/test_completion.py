"""Completion without labels: what the network is shown, and that it learns metres from one line."""

import numpy as np
import pytest
import torch

from mde_ros.checkpoint import load
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import Sample, open_dataset
from mde_ros.datasets.transforms import View, crop_resize, flip
from mde_ros.datasets.virtual_scan import VirtualScan, cut
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import points_to_depth, project
from mde_ros.pipeline import DepthPipeline
from mde_ros.training import completion
from mde_ros.training.batches import Source
from mde_ros.training.completion import CompletionSettings, completion_loss, maps_of, shown
from mde_ros.training.loop import LoopSettings

CAMERA = Camera(64, 48, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


def settings(**options):
    return CompletionSettings(**{"sources": (Source("anywhere"),), **options})


def scanned(n=200):
    """A view with points on a wall at 3 m, in one line across the whole image."""
    x = np.linspace(-1.5, 1.5, n)
    points = np.stack([x, np.full(n, 0.3), np.full(n, 3.0)], 1).astype(np.float32)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return View(image, np.zeros((48, 64)), np.full((48, 64), 2.0), CAMERA, points)


def test_measured_depth_is_not_handed_on_but_as_the_scan_cut_out_of_it():
    depth = np.full((48, 64), 2.0, np.float32)
    sample = Sample(Frame(np.zeros((48, 64, 3), np.uint8), CAMERA), depth, "a")
    given = completion.prepare(Source("x", scan="height=0.3"), 4, sample)
    expected, _ = cut(depth, CAMERA, VirtualScan(0.3), 4)
    assert given.truth_m is None and len(expected)
    assert np.array_equal(given.frame.points, expected)
    assert completion.prepare(Source("x"), 4, sample).frame.points is None


def test_random_scans_differ_between_frames_and_repeat():
    depth = np.full((48, 64), 2.0, np.float32)
    sample = Sample(Frame(np.zeros((48, 64, 3), np.uint8), CAMERA), depth, "a")
    source = Source("x", scan="random")
    first, again, other = (completion.prepare(source, i, sample).frame.points for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:, 1], other[:, 1])


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [({"monocular": 1.0}, 0, 0), ({"monocular": 0.0, "hidden": 0.0}, 200, 200),
     ({"monocular": 0.0, "hidden": 1.0}, 0, 199)],
)  # fmt: skip
def test_as_many_points_are_shown_as_asked(options, least, most):
    points, rng = scanned().points, np.random.default_rng(3)
    counts = [shown(points, settings(**options), rng).sum() for _ in range(50)]
    assert least <= min(counts) and max(counts) <= most
    assert shown(points[:0], settings(**options), rng).shape == (0,)


def test_hidden_points_are_missing_from_the_input_and_not_from_the_target():
    maps = maps_of(settings(monocular=0.0, hidden=1.0))(scanned(), np.random.default_rng(0))
    points, given = maps["points"], maps["given"]
    assert points.shape == given.shape == (1, 48, 64)
    assert 0 < (given > 0).sum() < (points > 0).sum()
    assert np.array_equal(given[given > 0], points[given > 0])


def test_points_stay_on_what_they_hit_when_the_view_is_cut_rolled_and_mirrored():
    """A bright dot is painted where a point projects; after the change it is still there."""
    camera = Camera(320, 240, np.array([[250, 0, 150.0], [0, 250, 118.0], [0, 0, 1.0]]))
    point = np.array([[0.35, 0.2, 2.0]], np.float32)
    (u, v), image = np.rint(project(point, camera)[0][0]).astype(int), np.zeros((240, 320, 3))
    image[v - 3 : v + 4, u - 3 : u + 4] = 255
    nothing = np.zeros((240, 320), np.float32)
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = View(image.astype(np.uint8), nothing, nothing, camera, point)
        view = flip(crop_resize(view, rng, 160, 120, 0.6, 10.0), rng)
        if (view.image > 128).any():
            found += 1
            middle = np.argwhere(view.image[..., 0] > 128).mean(0)[::-1]
            assert project(view.points, view.camera)[0][0] == pytest.approx(middle, abs=1.0)
    assert found > 10


def test_loss_is_the_sum_of_its_weighted_terms():
    class Says(torch.nn.Module):
        def forward(self, x, sparse):
            depth = 2 + sparse[:, :, ::2, ::2] * 0 + torch.arange(6.0) / 10
            return depth, torch.full_like(depth, -2.0)

    batch = {
        "image": torch.zeros(1, 8, 12, 3, dtype=torch.uint8),
        "given": torch.zeros(1, 1, 8, 12),
        "points": torch.nn.functional.pad(torch.full((1, 1, 1, 12), 3.0), (0, 0, 4, 3)),
        "teacher": torch.linspace(1, 2, 12).expand(1, 1, 8, 12),
        "lines": torch.tensor([[[1.0, 2, 10, 6]]]),
    }
    value = {
        weights: completion_loss(settings(point_weight=weights[0], line_weight=weights[1]))(
            Says(), batch
        ).item()
        for weights in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (3.0, 0.5))
    }
    shape, points, lines = value[0.0, 0.0], value[1.0, 0.0], value[0.0, 1.0]
    expected = shape + 3 * (points - shape) + 0.5 * (lines - shape)
    assert value[3.0, 0.5] == pytest.approx(expected, rel=1e-5)
    full = torch.nn.functional.interpolate(
        (2 + torch.arange(6.0) / 10).expand(1, 1, 4, 6), (8, 12), mode="bilinear"
    )
    assert points - shape == pytest.approx((3 - full[0, 0, 4]).mean().item(), rel=1e-5)
    assert lines != shape


@pytest.fixture
def tiny(monkeypatch):
    """Settings of a training that takes seconds."""
    monkeypatch.setattr(completion, "SIZES", ((64, 48),))
    monkeypatch.setattr(completion, "camera_look", lambda image, rng: image)
    monkeypatch.setattr(completion, "SHORTEST_LINE", 10.0)

    def make(source, teacher, steps):
        loop = LoopSettings(
            steps=steps, batch=4, warmup=3, lr=3e-3, encoder_lr=3e-3, ema=0.9, device="cpu",
            precision="32-true", threads=1, workers=0,
        )  # fmt: skip
        return CompletionSettings(
            sources=(source,), teacher=str(teacher), initial="", focal_px=60.0,
            smallest_crop=1.0, monocular=0.3, loop=loop,
        )  # fmt: skip

    return make


def test_metres_are_learnt_from_one_line_and_a_teacher_without_scale(
    tiny, plane_folder, foreign_onnx, tmp_path
):
    """Grey is 30 · depth and the teacher says grey / 255: 8.5 times too near everywhere.

    Without any point at hand the trained network must be metric too.
    """
    folder = plane_folder()
    grey = foreign_onnx(
        [("Slice", ["x", [0], [1], [1]], ["c"]), ("Mul", ["c", 1.0], ["y"])],
        "metric: false",
    )
    teacher = DepthPipeline(PipelineSettings(model=str(grey), min_depth=0.01))
    sample = open_dataset(folder)[0]
    assert teacher(sample.frame).depth == pytest.approx(sample.truth_m * 30 / 255, abs=0.01)
    model = completion.train(
        tiny(Source(str(folder), scan="height=0.3"), grey, 80), tmp_path / "out"
    )
    pipeline = DepthPipeline(PipelineSettings(model=str(model), device="cpu", threads=1))
    with_line, without, flat = [], [], []
    for sample in open_dataset(folder):
        line, _ = cut(sample.truth_m, sample.frame.camera, VirtualScan(0.3))
        for points, errors in ((line, with_line), (None, without)):
            frame = Frame(sample.frame.image, sample.frame.camera, points)
            errors.append(np.abs(np.log(pipeline(frame).depth / sample.truth_m)).mean())
        flat.append(np.abs(np.log(np.median(sample.truth_m) / sample.truth_m)).mean())
    assert np.mean(with_line) < 0.5 * np.mean(flat)
    assert np.mean(without) < 1.0  # the teacher's is ln 8.5 = 2.1
    spec = load(model).spec
    assert spec["takes_points"] and spec["multiple"] == 16


def test_recordings_without_any_scan_are_refused(tiny, plane_folder, students, tmp_path):
    source = Source(str(plane_folder()))
    with pytest.raises(ConfigError, match=r"sources: expected scans .* got none"):
        completion.train(tiny(source, students["fast_mobilenet_v2"][1], 1), tmp_path / "out")


def test_network_that_takes_no_points_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"network: expected one that takes points"):
        completion.train(settings(network="fast_mobilenet_v2"), tmp_path / "out")


def test_points_reach_the_network_in_canonical_metres(plane_folder):
    """Half the canonical focal length: what is 3 m away is 6 canonical metres away."""
    from mde_ros.training.batches import Batches, load_sources

    source = Source(str(plane_folder()), scan="height=0.3")
    stored = load_sources((source,), lambda f: np.ones((48, 64)), False, completion.prepare)
    options = settings(monocular=0.0, hidden=0.0)
    plain = lambda view, rng, width, height: view  # noqa: E731
    batches = Batches(stored, [1.0], plain, ((64, 48),), 120.0, 2, 0, more=maps_of(options))
    batch = batches[0]
    expected = {float(points_to_depth(s.points, s.camera).sum()): s for one in stored for s in one}
    for given in batch["given"]:
        assert min(abs(given.sum().item() - 2 * total) for total in expected) < 1e-2
