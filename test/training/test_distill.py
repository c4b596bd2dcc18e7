"""Distillation: labelled and unlabelled terms by their formula, and a student that learns."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.checkpoint import load
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.transforms import View
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.metrics import edge_metrics
from mde_ros.model import DepthModel
from mde_ros.pipeline import DepthPipeline
from mde_ros.training import distill
from mde_ros.training.batches import Source
from mde_ros.training.distill import DistillSettings, augment, distill_loss
from mde_ros.training.loop import LoopSettings
from mde_ros.training.teacher import make_teacher
from mde_ros.training.validation import HeldOut, validation

SOMETHING = (Source("anywhere"),)
ONES = np.ones((228, 304), np.float32)
TWO_METRES = [("Slice", ["x", [0], [1], [1]], ["c"]), ("Mul", ["c", 0.0], ["z"])]


class Says(nn.Module):
    """Answers with one learnt number for each image, at half resolution."""

    def __init__(self, *metres):
        super().__init__()
        self.metres = nn.Parameter(torch.tensor(metres))

    def forward(self, x):
        n, _, h, w = x.shape
        return self.metres.view(n, 1, 1, 1).expand(n, 1, h // 2, w // 2)


def batch(truth, teacher):
    """Flat depths, one image each."""
    n = len(truth)
    flat = {k: torch.tensor(v).view(n, 1, 1, 1).expand(n, 1, 8, 12) for k, v in
            {"truth": truth, "teacher": teacher}.items()}  # fmt: skip
    return {"image": torch.zeros(n, 8, 12, 3, dtype=torch.uint8), **flat}


def settings(**options):
    return DistillSettings(**{"sources": SOMETHING, **options})


@pytest.mark.parametrize(("loss", "floor"), [("log_depth", 0.0), ("three_term", -2.0794)])
def test_student_that_equals_its_targets_has_the_floor_loss(loss, floor):
    of = distill_loss(settings(loss=loss))
    value = of(Says(2.0, 3.0), batch([2.0, 0.0], [2.0, 3.0]))
    assert value.item() == pytest.approx(floor, abs=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_terms_of_labelled_and_unlabelled_images_follow_the_formula(weight):
    """Flat maps: the loss is |ln of the ratio|. One image of three is unlabelled."""
    of = distill_loss(settings(teacher_weight=weight))
    value = of(Says(2.0, 2.0, 2.0), batch([4.0, 3.0, 0.0], [5.0, 6.0, 7.0]))
    truth = (math.log(4 / 2) + math.log(3 / 2)) / 2
    teacher = (math.log(5 / 2) + math.log(6 / 2)) / 2
    expected = 2 / 3 * ((1 - weight) * truth + weight * teacher) + 1 / 3 * math.log(7 / 2)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_unlabelled_batch_needs_no_depth_and_moves_the_student_towards_the_teacher():
    student = Says(2.0, 2.0)
    targets = batch([0.0, math.nan], [3.0, 1.0])
    targets["teacher"] = targets["teacher"].clone().requires_grad_()
    distill_loss(settings())(student, targets).backward()
    assert student.metres.grad.sign().tolist() == [-1.0, 1.0]


def test_answer_of_the_teacher_is_an_array_and_carries_no_gradient(students):
    teacher = make_teacher(str(students["fast_mobilenet_v2"][1]))
    said = teacher(Frame(np.zeros((48, 64, 3), np.uint8), Camera(64, 48, np.diag([60, 60, 1]))))
    assert type(said) is np.ndarray and said.shape == (48, 64) and np.isfinite(said).all()
    assert make_teacher("") is None


def pictured(width=64, height=48):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    K = np.array([[60, 0, (width - 1) / 2], [0, 60, (height - 1) / 2], [0, 0, 1.0]])
    return Frame(image, Camera(width, height, K))


@pytest.mark.parametrize(("metres", "label"), [(2.0, 2.0), (100.0, 0.0), (-1.0, 0.0)])
def test_label_is_what_the_teacher_says_and_none_where_it_says_nothing(foreign_onnx, metres, label):
    """Mirror and crops of a flat answer change nothing; out of range is no measurement."""
    path = foreign_onnx([*TWO_METRES, ("Add", ["z", metres], ["y"])], "")
    said = make_teacher(str(path))(pictured())
    assert said == pytest.approx(np.full((48, 64), label), rel=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_teacher_is_scaled_to_the_truth_where_there_is_one(labelled):
    frame = pictured()
    truth = np.full((48, 64), 3.0 * labelled, np.float32)
    view = View(frame.image, truth, np.full((48, 64), 2.0, np.float32), frame.camera)
    out = augment(settings())(view, np.random.default_rng(1), 32, 24)
    assert out.image.shape == (24, 32, 3) and out.camera.width == 32
    known = out.teacher_m[out.teacher_m > 0]
    assert known == pytest.approx(np.full(known.size, 3.0 if labelled else 2.0), rel=1e-6)
    assert np.array_equal(out.truth_m > 0, (out.teacher_m > 0) & labelled)


def test_no_data_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="sources: expected at least one data set"):
        DistillSettings()


def error(model, folder):
    """Mean |ln ratio| of a checkpoint's depth at the size it was trained at."""
    network = DepthModel(load(model).network, 60.0).eval()
    errors = []
    for sample in open_dataset(folder):
        with torch.inference_mode():
            depth = network(torch.from_numpy(sample.frame.image)[None], torch.tensor([60.0]))
        errors.append((depth["depth"][0, 0] / torch.from_numpy(sample.truth_m)[::2, ::2]).log())
    return torch.stack(errors).abs().mean().item()


def test_sizes_keep_their_shapes_at_another_area():
    assert distill.sizes_of(304 * 228) == distill.SIZES
    for (w, h), (width, height) in zip(distill.sizes_of(152 * 114), distill.SIZES):
        assert w % 4 == h % 4 == 0
        assert (w / width, h / height) == pytest.approx((0.5, 0.5), rel=0.03)


@pytest.mark.parametrize(
    ("given", "at_304x228"), [(0.0, 250 * (69312 / 6144) ** 0.5), (200.0, 200.0)]
)
def test_canonical_focal_length_is_that_of_the_initial_weights_or_as_given(
    given, at_304x228, students, plane_folder, tmp_path
):
    """Those of the planted student are 250 px at 96x64, here at 64x48."""
    loop = LoopSettings(steps=1, batch=1, device="cpu", precision="32-true", threads=1, workers=0)
    model = distill.train(
        settings(
            sources=(Source(str(plane_folder())),), initial=str(students["fast_mobilenet_v2"][0]),
            focal_px=given, pixels=64 * 48, loop=loop,
        ),
        tmp_path,
    )  # fmt: skip
    spec = load(model).spec
    assert spec["pixels"] == 64 * 48
    assert spec["focal_px"] == pytest.approx(at_304x228 * 64 / 304, rel=1e-6)


def test_student_learns_planted_slopes(plane_folder, tmp_path, monkeypatch):
    """A few dozen steps on small windows; grey values tell the depth, so colours are left."""
    monkeypatch.setattr(distill, "SIZES", ((64, 48),))
    monkeypatch.setattr(distill, "PIXELS", 64 * 48)
    monkeypatch.setattr(distill, "camera_look", lambda image, rng: image)
    folder = plane_folder()

    loop = LoopSettings(
        steps=80, batch=4, warmup=3, lr=5e-3, encoder_lr=5e-3, ema=0.9, device="cpu",
        precision="32-true", threads=1, workers=0,
    )  # fmt: skip
    # Whole images: grey values tell metres, which a window shows at another scale.
    options = {"focal_px": 60.0, "pixels": 64 * 48, "smallest_crop": 1.0, "loop": loop}
    model = distill.train(settings(sources=(Source(str(folder)),), **options), tmp_path / "out")
    logs = np.log([sample.truth_m for sample in open_dataset(folder)])
    best_constant = np.abs(logs - np.median(logs)).mean()
    assert error(model, folder) < 0.3 * best_constant


def test_figures_of_held_out_sets_are_those_of_the_pipeline(plane_folder, students):
    """Oracle: AbsRel and RMSE written out over the last frames of the set."""
    folder, model = plane_folder("kept", 5), students["fast_mobilenet_v2"][0]
    figures = validation((HeldOut(str(folder), last=3, every=2),))(model)
    pipeline = DepthPipeline(PipelineSettings(model=str(model), device="cpu", threads=1))
    samples = [open_dataset(folder)[i] for i in (2, 4)]
    depths = [pipeline(s.frame).depth for s in samples]
    relative = [(abs(d - s.truth_m) / s.truth_m).mean() for d, s in zip(depths, samples)]
    assert figures["kept/abs_rel"] == pytest.approx(np.mean(relative), rel=1e-4)
    edges = [edge_metrics(d, s.truth_m)["edge_f1"] for d, s in zip(depths, samples)]
    assert figures["kept/edge_f1"] == pytest.approx(np.mean(edges), rel=1e-4)
    assert set(figures) == {f"kept/{k}" for k in ("abs_rel", "rmse_m", "delta1", "edge_f1")}
    assert validation(()) is None


def test_held_out_set_is_cropped_as_published_where_asked(plane_folder, students, monkeypatch):
    folder, model = str(plane_folder("kept", 2)), students["fast_mobilenet_v2"][0]
    seen = []
    monkeypatch.setattr(
        DepthPipeline, "__call__", lambda self, frame: seen.append(frame) or Prediction(ONES)
    )
    figures = validation((HeldOut(folder, every=1, prepared="nyu"),))(model)
    assert [(f.camera.width, f.camera.height) for f in seen] == [(304, 228)] * 2
    assert figures["kept/rmse_m"] > 0
    with pytest.raises(ConfigError, match="prepared: expected one of , nyu, scannet, kitti"):
        HeldOut(folder, prepared="sun")


def test_held_out_set_without_depth_is_refused_when_it_is_opened(plane_folder):
    folder = plane_folder("bare", 3)
    for file in (folder / "depth").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"held_out: expected measured depth in .*bare, got none"):
        validation((HeldOut(str(folder), last=2),))


def test_last_frames_beyond_the_set_are_all_of_it(plane_folder, students):
    folder, model = str(plane_folder("kept", 3)), students["fast_mobilenet_v2"][0]
    every, beyond = (validation((HeldOut(folder, last=n, every=1),))(model) for n in (0, 4))
    assert every == beyond
