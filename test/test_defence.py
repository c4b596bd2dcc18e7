"""The defence: N(x ⊗ G(x)) the same everywhere, off as if it were not there, masks that fit."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mde_ros import cli
from mde_ros import pipeline as pipelines
from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.config import PipelineSettings
from mde_ros.config import load as load_settings
from mde_ros.defence import disagreement
from mde_ros.export import export, model_of
from mde_ros.frame import Camera, Frame
from mde_ros.model import DepthModel
from mde_ros.networks import NETWORKS, Network
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import (
    Alarm,
    Masked,
    ModelError,
    ModelSpec,
    load_defended,
    load_runtime,
    read_spec,
    sha256_of,
    spec_from_json,
    spec_to_json,
)

RNG = np.random.default_rng(11)
IMAGE = RNG.integers(0, 256, (64, 96, 3), np.uint8)
CAMERA = Camera(192, 128, np.array([[180.0, 0, 95.5], [0, 180.0, 63.5], [0, 0, 1]]))
FRAME = Frame(RNG.integers(0, 256, (128, 192, 3), np.uint8), CAMERA)
ALARM = {"threshold": 0.25, "false_alarm_rate": 0.01}


class Tiny(torch.nn.Module):
    """Three convolutions with fixed weights: a mask of all shades, or depth that sees its image."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask
        self.first, self.last = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 1, 1)
        self.middle = torch.nn.Conv2d(8, 8, 3, padding=1, stride=1 if mask else 2)
        generator = torch.Generator().manual_seed(3)
        for p in self.parameters():
            torch.nn.init.uniform_(p, -0.4, 0.4, generator=generator)

    def forward(self, x):
        answer = self.last(torch.relu(self.middle(torch.relu(self.first(x)))))
        return torch.sigmoid(answer) if self.mask else torch.exp(answer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """room.safetensors with its mask, both exported, linked to one copy of the weights."""
    folder = tmp_path_factory.mktemp("defence")
    model, mask = folder / "room.safetensors", folder / "room-mask.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        for name, is_mask in (("tiny_mask", True), ("tiny_depth", False)):
            patch.setitem(NETWORKS, name, Network(partial(Tiny, is_mask), "known"))
        about = {"name": "room", "focal_px": 250.0, "pixels": 96 * 64}
        save(model, Checkpoint("tiny_depth", Tiny(False), about))
        spec = {"masks": [{"model": "room", "sha256": sha256_of(model)}], "alarm": ALARM}
        save(mask, Checkpoint("tiny_mask", Tiny(True), spec))
        export(model, folder / "room.onnx", linked=True)
        export(model, folder / "room-mask.onnx", linked=True, mask=mask)
        yield folder


@pytest.fixture
def copy(folder, tmp_path):
    """The same files, to be spoilt."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_disagreement_is_the_median_of_the_logarithms_of_the_ratios():
    depth = RNG.uniform(1, 9, (20, 30))
    assert disagreement(depth, depth) == 0
    assert disagreement(1.1 * depth, depth) == pytest.approx(np.log(1.1))
    assert disagreement(depth, 1.1 * depth) == pytest.approx(np.log(1.1))
    few = depth.copy()
    few[:9] *= 5  # 45 % of the pixels
    assert disagreement(few, depth) == 0


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf])
def test_pixels_that_either_map_does_not_know_do_not_count(nothing):
    depth = np.full((2, 4), 2.0)
    other = 1.5 * depth
    depth[0], other[1, :3] = nothing, nothing
    assert disagreement(depth, other) == pytest.approx(np.log(1.5))
    assert np.isnan(disagreement(depth, np.full((2, 4), nothing)))


def test_the_mask_multiplies_the_normalised_image_and_is_told():
    """By hand, with a network that is half of what it sees."""
    network, mask = torch.nn.Conv2d(3, 1, 1), Tiny(True)
    model = DepthModel(network, 100.0, mask)
    image = torch.from_numpy(IMAGE)[None]
    x = model.normalise(image)
    with torch.inference_mode():
        out = model(image, torch.tensor([200.0]))
        assert set(out) == {"depth", "saliency"}
        assert torch.equal(out["saliency"], mask(x))
        assert torch.allclose(out["depth"], 2 * network(x * mask(x)))


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [(64, 96), (52, 80)])
def test_every_runtime_gives_the_depth_and_the_mask_of_torch(folder, runtime, size):
    pytest.importorskip(runtime)
    image = IMAGE[: size[0], : size[1]]
    path = folder / ("room.safetensors" if runtime == "torch" else "room.onnx")
    plain = load_runtime(str(path), runtime, "cpu", 1)
    defended = load_defended(plain)
    network, mask = (load(folder / f"{n}.safetensors").network for n in ("room", "room-mask"))
    model = DepthModel(network, plain.spec.focal_px, mask).eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)[None], torch.tensor([300.0]))
    got = defended(image, 300.0)
    assert set(got) == {"depth", "saliency"} and got["saliency"].shape == size
    for name, value in expected.items():
        assert got[name] == pytest.approx(value[0, 0].numpy(), rel=2e-3, abs=1e-4), name
    assert np.ptp(got["saliency"]) > 0.2, "a mask of one shade would prove nothing"
    change = np.abs(np.log(got["depth"] / plain(image, 300.0)["depth"]))
    assert np.median(change) > 0.01, "the mask must matter"
    assert defended.spec.alarm == Alarm(**ALARM)
    assert defended.sha256 == plain.sha256 == sha256_of(folder / "room.safetensors")


def test_completion_gets_its_points_through_the_mask_too(ruler, folder, tmp_path):
    """The ruler looks at its points alone, so that the mask changes nothing but the picture."""
    model = shutil.copy(ruler[0], tmp_path / "ruler.safetensors")
    mask = tmp_path / "ruler-mask.safetensors"
    spec = {"masks": [{"model": "ruler", "sha256": sha256_of(model)}]}
    save(mask, Checkpoint("tiny_mask", Tiny(True), spec))
    export(model, tmp_path / "ruler.onnx")
    export(model, tmp_path / "ruler-mask.onnx", mask=mask)
    for name, suffix in (("onnxruntime", ".onnx"), ("torch", ".safetensors")):
        plain = load_runtime(str(model.with_suffix(suffix)), name, "cpu", 1)
        sparse = RNG.uniform(0, 3, (12, 16)).astype(np.float32)
        out = load_defended(plain)(np.zeros((12, 16, 3), np.uint8), 100.0, sparse)
        assert set(out) == {"depth", "uncertainty", "saliency"}
        assert out["depth"] == pytest.approx(2 + 3 * sparse, rel=1e-5)


def weights(path):
    return onnx.load(path, load_external_data=False).graph.initializer


def test_whole_in_onnx_holds_no_weights_and_is_refused_once_the_mask_has_changed(copy):
    whole, mask = copy / "room-mask.onnx", copy / "room-mask.safetensors"
    assert not any(t.raw_data or t.float_data for t in weights(whole) if np.prod(t.dims) > 1)
    plain = load_runtime(str(copy / "room.onnx"), device="cpu")
    network = Tiny(True)
    torch.nn.init.zeros_(network.first.bias)
    save(mask, Checkpoint("tiny_mask", network, load(mask).spec))
    with pytest.raises(ModelError, match=r"expected room-mask\.safetensors beside it.*export it"):
        load_defended(plain)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_off_never_looks_for_a_mask_and_is_bit_for_bit_what_it_is_without_one(
    folder, monkeypatch, suffix
):
    settings = PipelineSettings(model=str(folder / f"room{suffix}"), device="cpu", threads=1)
    pipeline = DepthPipeline(settings)
    before = pipeline(FRAME)
    assert before.saliency is before.disagreement is pipeline.defended is None
    raw = load_runtime(settings.model, device="cpu", threads=1)
    image, _ = pipeline.prepare(FRAME, pipeline.optics(CAMERA))
    focal_px = pipeline.optics(CAMERA).network.focal_px
    pipeline.settings = dataclasses.replace(settings, defence="mask")
    masked = pipeline(FRAME)
    assert masked.saliency is not None and not np.array_equal(masked.depth, before.depth)
    pipeline.settings = settings
    assert np.array_equal(pipeline(FRAME).depth, before.depth)
    outputs = pipeline.infer(image, focal_px, None)
    assert set(outputs) == {"depth"}
    assert np.array_equal(outputs["depth"], raw(image, focal_px)["depth"])


def test_mask_is_loaded_once_and_only_when_it_is_asked_for(folder, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        pipelines, "load_defended", lambda *a: loaded.append(a) or load_defended(*a)
    )
    settings = PipelineSettings(model=str(folder / "room.onnx"), device="cpu", threads=1)
    pipeline = DepthPipeline(settings)
    for defence, times in (("off", 0), ("mask", 1), ("off", 1), ("monitor", 1), ("mask", 1)):
        pipeline.settings = dataclasses.replace(settings, defence=defence)
        assert len(loaded) == times, defence


def test_monitor_compares_what_mask_says_with_what_off_says(folder):
    settings = PipelineSettings(model=str(folder / "room.onnx"), device="cpu", threads=1)
    pipeline = DepthPipeline(settings)
    image, _ = pipeline.prepare(FRAME, pipeline.optics(CAMERA))
    said, answers = {}, {}
    for defence in ("off", "mask", "monitor"):
        pipeline.settings = dataclasses.replace(settings, defence=defence)
        said[defence] = pipeline(FRAME)
        answers[defence] = pipeline.infer(image, pipeline.optics(CAMERA).network.focal_px, None)
    assert np.array_equal(said["monitor"].depth, said["mask"].depth)
    assert np.array_equal(said["monitor"].saliency, said["mask"].saliency)
    assert said["mask"].disagreement is None
    ratio = answers["mask"]["depth"] / answers["off"]["depth"]
    assert said["monitor"].disagreement == pytest.approx(np.median(np.abs(np.log(ratio))))
    assert pipeline.alarm == Alarm(**ALARM)
    pipeline.settings = dataclasses.replace(settings, defence="monitor", alarm_threshold=0.5)
    assert pipeline.alarm == Alarm(0.5, 0.0), "a rate is known of the mask's own threshold only"


def test_lifelong_model_is_compared_in_the_domain_that_was_chosen():
    class Planted:
        def __init__(self, factor, **more):
            metres = np.arange(1.0, 4)[:, None, None] * np.ones((4, 4), np.float32)
            self.spec = ModelSpec(domains=("a", "b", "c"), size=(4, 4))
            self.maps = {"depth": metres[0], "depth_each": factor[:, None, None] * metres}
            self.maps |= {"uncertainty_each": metres, "distances": np.array([3.0, 1.0, 2.0])} | more

        def __call__(self, image, focal_px, sparse=None):
            return {k: np.array(v, np.float32) for k, v in self.maps.items()}

    pipeline = DepthPipeline(PipelineSettings(), Planted(np.array([1.0, 1.0, 1.0])))
    pipeline.defended = Planted(np.array([5.0, 1.25, 7.0]), saliency=np.ones((4, 4)))
    pipeline.settings = PipelineSettings(defence="monitor")
    camera = Camera(4, 4, np.diag([4.0, 4.0, 1.0]))
    prediction = pipeline(Frame(np.zeros((4, 4, 3), np.uint8), camera))
    assert prediction.domain == "b" and (prediction.depth == 2.5).all()
    assert prediction.disagreement == pytest.approx(np.log(1.25))
    assert (prediction.saliency == 1).all()


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def retrained(folder):
    network = load(folder / "room.safetensors").network
    next(network.parameters()).data += 0.01
    save(folder / "room.safetensors", Checkpoint("tiny_depth", network, {"name": "room"}))
    export(folder / "room.safetensors", folder / "room.onnx", linked=True)


MISTAKES = {
    "no mask for onnxruntime": (
        remove("room-mask.onnx"), "room.onnx", "auto",
        r"mask: there is none for room\.onnx \(room-mask\.onnx is not beside it\); train one",
    ),
    "no mask for torch": (
        remove("room-mask.safetensors"), "room.safetensors", "auto",
        r"mask: there is none for room\.safetensors \(room-mask\.safetensors is not",
    ),
    "model retrained, torch": (
        retrained, "room.safetensors", "auto",
        r"mask: room-mask\.safetensors belongs to room of SHA-256 \w{12}…, got room\.safetensors of"
        r" \w{12}…; train one with `mde train defence`",
    ),
    "model retrained, onnxruntime": (
        retrained, "room.onnx", "auto",
        r"expected room\.safetensors beside it with SHA-256 \w{12}…, got \w{12}; export it again",
    ),
    "no such file": (
        remove(), "room.onnx", "/nowhere/mask.onnx",
        r"mask: expected auto or an existing \.safetensors or \.onnx file, got '/nowhere/mask",
    ),
    "not exported": (
        remove("room-mask.onnx"), "room.onnx", "room-mask.safetensors",
        r"mask: onnxruntime runs \.onnx, got room-mask\.safetensors; use `mde export room-mask",
    ),
    "onnx for torch": (
        remove("room-mask.safetensors"), "room.safetensors", "room-mask.onnx",
        r"mask: torch runs \.safetensors, got room-mask\.onnx; use onnxruntime",
    ),
    "no mask at all": (
        remove(), "room.onnx", "room.onnx",
        r"mask: expected a mask, room\.onnx is a network of another kind",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mask_that_does_not_fit_is_refused_in_one_sentence_and_nothing_changes(copy, mistake):
    spoil, model, mask, message = MISTAKES[mistake]
    if mask != "auto" and not mask.startswith("/"):
        mask = str(copy / mask)
    spoil(copy)
    settings = PipelineSettings(model=str(copy / model), mask=mask, device="cpu", threads=1)
    pipeline = DepthPipeline(settings)
    with pytest.raises(ModelError, match=message) as caught:
        pipeline.settings = dataclasses.replace(settings, defence="mask")
    assert "\n" not in str(caught.value)
    assert pipeline.settings is settings and pipeline(FRAME).saliency is None


def test_foreign_network_has_no_mask(foreign_onnx):
    path = foreign_onnx([("Slice", ["x", [0], [1], [1]], ["y"])], "scale: 1.0")
    with pytest.raises(ModelError, match=r"mask: expected a network of this package, net\.onnx"):
        DepthPipeline(PipelineSettings(model=str(path), device="cpu", defence="mask"))


@pytest.mark.parametrize("name", ["room-mask.onnx", "room-mask.safetensors"])
def test_mask_is_no_model(folder, name):
    with pytest.raises(ModelError, match=f"model: {name} is a mask of room; give it as mask"):
        load_runtime(str(folder / name), device="cpu")


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_mask_that_lies_elsewhere_is_named_by_either_of_its_files(copy, tmp_path, suffix):
    """With a copy of the weights of its own, as `mde export` writes it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mask = shutil.move(copy / "room-mask.safetensors", elsewhere / "mine.safetensors")
    (copy / "room-mask.onnx").unlink()
    model = str(copy / "room.safetensors")
    assert cli.main(["export", str(mask), "--model", model]) == 0
    assert cli.main(["export", model]) == 0
    for name in ("room.onnx", "room.safetensors"):
        plain = load_runtime(str(copy / name), device="cpu", threads=1)
        assert load_defended(plain, str(elsewhere / f"mine{suffix}"))(IMAGE, 300.0).keys() == {
            "depth",
            "saliency",
        }


def test_two_models_share_a_mask_that_names_both(copy):
    other, mask = copy / "hall.safetensors", copy / "room-mask.safetensors"
    shutil.copy(copy / "room.safetensors", other)
    network = load(other).network
    next(network.parameters()).data += 0.01
    save(other, Checkpoint("tiny_depth", network, {"name": "hall"}))
    both = [*load(mask).spec["masks"], {"model": "hall", "sha256": sha256_of(other)}]
    save(mask, Checkpoint("tiny_mask", Tiny(True), {"masks": both, "alarm": ALARM}))
    whole = str(copy / "hall-mask.onnx")
    export(other, copy / "hall.onnx")
    assert cli.main(["export", str(mask), "--model", str(other), "--output", whole]) == 0
    for name in ("hall.onnx", "hall.safetensors"):
        defended = load_defended(load_runtime(str(copy / name), device="cpu", threads=1))
        assert {"depth", "saliency"} == defended(IMAGE, 300.0).keys()


def test_mask_is_exported_with_the_model_it_names_and_with_no_other(copy, capsys):
    mask, whole = copy / "room-mask.safetensors", copy / "room-mask.onnx"
    assert model_of(mask) == copy / "room.safetensors"
    whole.unlink()
    assert cli.main(["export", str(mask), "--linked"]) == 0
    assert load_defended(load_runtime(str(copy / "room.onnx"), device="cpu"))
    whole.unlink()
    foreign = str(copy / "hall.safetensors")
    save(Path(foreign), Checkpoint("tiny_depth", Tiny(False), {"name": "hall"}))
    assert cli.main(["export", str(mask), "--model", foreign]) == 2
    assert "room-mask.safetensors belongs to room of SHA-256" in capsys.readouterr().err
    assert cli.main(["export", str(mask), "--model", str(copy / "room.safetensors")]) == 0
    (copy / "room.safetensors").unlink()
    assert cli.main(["export", str(mask)]) == 2
    assert "there is no room.safetensors beside it; name it with --model" in capsys.readouterr().err
    assert cli.main(["export", foreign, "--model", "default"]) == 2
    assert "--model: expected together with a mask" in capsys.readouterr().err


def test_spec_of_a_mask_survives_its_checkpoint_and_json(folder):
    spec = read_spec(folder / "room-mask.safetensors")
    assert spec.masks == (Masked("room", sha256_of(folder / "room.safetensors")),)
    assert spec.alarm == Alarm(0.25, 0.01)
    assert spec_from_json(spec_to_json(spec), "here") == spec
    assert "alarm" not in spec_to_json(ModelSpec(name="a"))
    with pytest.raises(ModelError, match="false_alarm_rate: expected a value in"):
        spec_from_json('{"alarm": {"false_alarm_rate": 1.5}}', "here")


def test_off_in_a_file_is_off_though_yaml_says_false(tmp_path):
    (tmp_path / "settings.yaml").write_text("defence: off\n")
    assert load_settings(PipelineSettings, tmp_path / "settings.yaml").defence == "off"
