"""Teachers: what a relative one leaves open, alignment finds again; others say what they are."""

import json
import sys

import numpy as np
import pytest
import torch

from mde_ros.cli import extra_for
from mde_ros.config import ConfigError
from mde_ros.datasets import open_dataset
from mde_ros.datasets.transforms import View
from mde_ros.frame import Camera, Frame
from mde_ros.runtime import ModelError
from mde_ros.training import distill
from mde_ros.training.batches import Source
from mde_ros.training.distill import DistillSettings, augment, distill_loss
from mde_ros.training.loop import LoopSettings
from mde_ros.training.teacher import Teacher, make_teacher, scale_and_shift

RED = ("Slice", ["x", [0], [1], [1]], ["c"])  # grey is 30 · depth, of 255: see plane_folder
# depth → what a teacher says: affine in depth, or in inverse depth
SAYS = {
    "depth": [RED, ("Mul", ["c", 7.0], ["d"]), ("Sub", ["d", 40.0], ["y"])],
    "inverse_depth": [
        RED, ("Reciprocal", ["c"], ["i"]), ("Mul", ["i", 900.0], ["d"]), ("Add", ["d", 33.0], ["y"])
    ],
}  # fmt: skip


@pytest.fixture(params=SAYS)
def teacher(request, foreign_onnx):
    """A relative teacher of the planted rooms; its scale and shift are none of theirs."""
    path = foreign_onnx(SAYS[request.param], f"metric: false\noutput: {request.param}")
    made = make_teacher(str(path), affine=True)
    assert made.relative == request.param
    return made


def labelled(teacher, sample, seen=slice(None)):
    """A view of a sample; only these rows of its truth are known."""
    truth = np.zeros_like(sample.truth_m)
    truth[seen] = sample.truth_m[seen]
    said = teacher(sample.frame).astype(np.float32)
    return View(sample.frame.image, truth, said, sample.frame.camera)


@pytest.mark.parametrize("seen", [slice(None), slice(10, 20)])
def test_relative_teacher_knows_metres_everywhere_from_a_few_rows_of_truth(
    teacher, plane_folder, seen
):
    """Grey values are whole numbers, so the planted depth is known to half of 1/30 m."""
    for sample in open_dataset(plane_folder()):
        view = labelled(teacher, sample, seen)
        assert not np.allclose(view.teacher_m, sample.truth_m, rtol=0.3)
        aligned = teacher.aligned(view)
        error = np.abs(aligned.teacher_m / sample.truth_m - 1)
        # At 1 m the grey value is 30 ± 0.5; few rows far away tell the near ones worse.
        assert np.median(error) < (0.01 if seen == slice(None) else 0.05)
        assert np.array_equal(aligned.truth_m, view.truth_m)


def test_relative_teacher_without_truth_stays_as_it_is_and_a_metric_one_always(
    teacher, plane_folder
):
    view = labelled(teacher, open_dataset(plane_folder())[0], slice(0))
    assert teacher.aligned(view) is view
    known = View(view.image, np.ones((48, 64), np.float32), view.teacher_m, view.camera)
    assert Teacher(lambda frame: frame).aligned(known) is known


@pytest.mark.parametrize("unit", [1e-4, 3.0])
def test_depth_without_scale_is_kept_whatever_its_unit_where_its_shape_alone_counts(
    unit, foreign_onnx, plane_folder
):
    path = foreign_onnx([RED, ("Mul", ["c", unit], ["y"])], "metric: false")
    for sample in open_dataset(plane_folder()):
        said = make_teacher(str(path))(sample.frame)
        assert np.median(said) == pytest.approx(3.0)
        shape = sample.truth_m / np.median(sample.truth_m)
        assert np.abs(said / 3 / shape - 1).max() < 0.06  # grey values are whole numbers


def test_alignment_is_that_of_the_whole_image_and_not_of_the_window(teacher, plane_folder):
    """Truth at the top only, windows of half the image: those at the bottom are metric too."""
    sample = open_dataset(plane_folder())[1]
    view = labelled(teacher, sample, slice(0, 12))
    whole, without = teacher.aligned(view).teacher_m, 0
    settings = DistillSettings(sources=(Source("x"),), smallest_crop=0.5)
    for seed in range(60):
        out = augment(settings, teacher)(view, np.random.default_rng(seed), 32, 24)
        if not (out.truth_m > 0).any():
            without += 1
            known = out.teacher_m[out.teacher_m > 0]
            assert np.isin(known, whole).all()
    assert without > 5


def test_loss_on_unlabelled_images_is_none_for_the_true_shape_at_any_scale(teacher, plane_folder):
    """A student that says the truth, up to what the teacher does not know, has nothing to learn."""

    class Says(torch.nn.Module):
        def forward(self, x):
            return depth

    sample = open_dataset(plane_folder())[2]
    batch = {
        "image": torch.zeros(1, 48, 64, 3, dtype=torch.uint8),
        "truth": torch.zeros(1, 1, 48, 64),
        "teacher": torch.from_numpy(teacher(sample.frame).astype(np.float32))[None, None],
    }
    of = distill_loss(DistillSettings(sources=(Source("x"),)), teacher.relative)
    true = torch.from_numpy(sample.truth_m)[None, None]
    values = []
    for known in (true, true * 3 + 10, 1 / (0.5 / true + 1), torch.flip(true, (2,))):
        depth = known
        values.append(of(Says(), batch).item())
    same, in_depth, in_inverse, reversed_ = values
    right, wrong = (in_depth, in_inverse)[:: 1 if teacher.relative == "depth" else -1]
    assert same < 0.07  # grey values are whole numbers
    assert right == pytest.approx(same, abs=1e-4)
    assert wrong > 2 * same and reversed_ > 1


def test_student_of_a_relative_teacher_needs_some_truth(teacher, plane_folder, tmp_path):
    folder = plane_folder()
    for file in (folder / "depth").iterdir():
        file.unlink()
    settings = DistillSettings(sources=(Source(str(folder)),), loop=LoopSettings(device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "make_teacher", lambda *_, affine: teacher)
        with pytest.raises(ConfigError, match=r"expected measured depth in one of them.*got none"):
            distill.train(settings, tmp_path / "out")


def test_scale_and_shift_are_those_of_a_polynomial_fit():
    rng = np.random.default_rng(0)
    values, target = rng.random((5, 7)), rng.random((5, 7))
    assert scale_and_shift(values, target) == pytest.approx(
        np.polyfit(values.ravel(), target.ravel(), 1)
    )
    assert scale_and_shift(np.full(3, 2.0), np.array([1.0, 2, 3])) == (0.0, 2.0)


def test_what_a_model_of_ours_gives_is_not_to_be_told(students):
    with pytest.raises(ConfigError, match="teacher_gives: expected auto"):
        make_teacher(str(students["fast_mobilenet_v2"][1]), "depth")


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture
def local_model(tmp_path):
    """(kind, preprocessor, options) → folder of a tiny depth model with random weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}

    def make(kind, preprocessor, **options):
        torch.manual_seed(5)
        vit = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
        if kind == "depth_anything":
            stages = [f"stage{i}" for i in range(1, 5)]
            backbone = transformers.Dinov2Config(
                **vit, patch_size=14, image_size=56, out_features=stages,
                reshape_hidden_states=False, apply_layernorm=True,
            )  # fmt: skip
            config = transformers.DepthAnythingConfig(
                backbone_config=backbone, reassemble_hidden_size=16, head_hidden_size=4,
                patch_size=14, **sizes, **options,
            )  # fmt: skip
            model = transformers.DepthAnythingForDepthEstimation(config)
        else:
            config = transformers.DPTConfig(
                **vit, intermediate_size=32, image_size=64, patch_size=16,
                backbone_out_indices=[0, 1, 2, 3], **sizes,
            )  # fmt: skip
            model = transformers.DPTForDepthEstimation(config)
        for parameter in model.parameters():  # as they come its answer is 1e-10
            parameter.data.normal_(0, 0.3)
        for parameter in model.head.parameters():  # which ends in a ReLU
            parameter.data.abs_()
        folder = tmp_path / kind
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return folder, model.eval()

    return make


NORMAL = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 255}
ASPECT = {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}


@pytest.mark.parametrize(
    ("kind", "preprocessor", "size"),
    [
        ("depth_anything", ASPECT, (70, 42)),
        ("depth_anything", {**ASPECT, "keep_aspect_ratio": False}, (56, 56)),
        ("dpt", {"size": 64, "keep_aspect_ratio": True}, (64, 64)),
    ],
)
def test_hugging_face_model_answers_as_when_it_is_called_by_hand(
    local_model, kind, preprocessor, size
):
    """Its own forward over the image at the size it wants, normalised as its file says."""
    import cv2

    from mde_ros.pipeline import DepthPipeline, PipelineSettings
    from mde_ros.training.hugging_face import HuggingFace

    folder, model = local_model(kind, {**NORMAL, **preprocessor})
    image = np.random.default_rng(1).integers(0, 256, (60, 100, 3), np.uint8)
    camera = Camera(100, 60, np.array([[80, 0, 49.5], [0, 80, 29.5], [0, 0, 1]]))
    runtime = HuggingFace(str(folder))
    assert runtime.spec.output == "inverse_depth" and not runtime.spec.metric
    pipeline = DepthPipeline(PipelineSettings(), runtime)
    optics = pipeline.optics(camera)
    assert (optics.network.width, optics.network.height) == size
    x = cv2.resize(image, size).astype(np.float32) / 255
    x = (x - np.float32(NORMAL["image_mean"])) / np.float32(NORMAL["image_std"])
    with torch.inference_mode():
        batch = torch.from_numpy(x.transpose(2, 0, 1))[None]
        expected = model(pixel_values=batch).predicted_depth[0].numpy()
    assert np.ptp(expected) > 0
    resized, _ = pipeline.prepare(Frame(image, camera), optics)
    assert 1 / runtime(resized, 80.0)["depth"] == pytest.approx(expected, rel=1e-3)


def test_hugging_face_teacher_labels_and_says_what_it_knows(local_model):
    frame = Frame(np.zeros((48, 64, 3), np.uint8), Camera(64, 48, np.diag([60.0, 60, 1])))
    relative, _ = local_model("depth_anything", {**NORMAL, **ASPECT})
    teacher = make_teacher(f"hf:{relative}", affine=True)
    said = teacher(frame)
    assert teacher.relative == "inverse_depth" and said.shape == (48, 64)
    assert said.min() == pytest.approx(1) and said.max() == pytest.approx(50)
    metric, _ = local_model(
        "depth_anything", {**NORMAL, **ASPECT}, depth_estimation_type="metric", max_depth=20
    )
    assert make_teacher(f"hf:{metric}", affine=True).relative == ""
    assert make_teacher(f"hf:{metric}", "depth", affine=True).relative == "depth"


def test_what_hugging_face_has_not_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="cannot be had from Hugging Face") as caught:
        make_teacher(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError) as missing:
        make_teacher("hf:some/model")
    assert extra_for(missing.value.name) == "install mde_ros[transformers]"
