"""Masks for a depth network: what is learnt, from what, and that the depth network stays."""

import copy
import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.attacks import ifgsm, spoiling
from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.losses import three_term
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.networks.folding import folded
from mde_ros.pipeline import DepthPipeline
from mde_ros.training import defence, masks, saliency, validation
from mde_ros.training.batches import Source
from mde_ros.training.defence import DefenceSettings, defence_loss, drawn, evaluating, under_attack
from mde_ros.training.loop import LoopSettings, make_fabric
from mde_ros.training.masks import fit_alarm, make_batches, open_frozen, sizes_of
from mde_ros.training.saliency import SaliencySettings, saliency_loss
from mde_ros.training.validation import HeldOut

LOOP = LoopSettings(
    steps=2, batch=4, warmup=0, lr=1e-2, encoder_lr=1e-2, ema=0.0, device="cpu",
    precision="32-true", threads=1, workers=0,
)  # fmt: skip
SOMETHING = (Source("anywhere"),)


class Says(nn.Module):
    """Depth: the mean of an image's channels plus 3 m, at half the size."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x.mean(1, keepdim=True), 2) + 3


class Shows(nn.Module):
    """The same part of every pixel, learnt."""

    def __init__(self, part):
        super().__init__()
        self.part = nn.Parameter(torch.tensor(part))

    def forward(self, x):
        return self.part.expand(len(x), 1, *x.shape[2:])


def batch(truth, epsilon, steps=2):
    """Noise images with flat truth, 0 = none."""
    n = len(truth)
    image = np.random.default_rng(0).integers(0, 256, (n, 8, 12, 3), np.uint8)
    return {
        "image": torch.from_numpy(image),
        "truth": torch.tensor(truth).view(n, 1, 1, 1).repeat(1, 1, 8, 12),
        "epsilon": torch.tensor(epsilon).view(n, 1, 1, 1),
        "iterations": torch.tensor([steps] * n),
    }


@pytest.fixture
def student(students):
    return students["fast_mobilenet_v2"][0]


def options(student, folder, **more):
    """A recipe's settings for a few steps on planes."""
    return {
        "model": str(student), "initial": str(student), "sources": (Source(str(folder)),),
        "pixels": 64 * 48, "loop": LOOP, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "network", "learnt"),
    [
        (saliency, "saliency_mobilenet_v2", "encoder.features.16.conv.6.weight"),
        (defence, "defence_smoothing", "noise.weight"),
    ],
)
def test_depth_network_is_bit_equal_before_and_after_and_the_mask_is_not(
    recipe, network, learnt, student, plane_folder, tmp_path, monkeypatch
):
    """File, weights and statistics; and no gradient is left on them."""
    opened = []
    monkeypatch.setattr(
        recipe, "open_frozen", lambda *a: opened.append(open_frozen(*a)) or opened[-1]
    )
    digest = hashlib.sha256(student.read_bytes()).hexdigest()
    kept = recipe.train(recipe.SETTINGS(**options(student, plane_folder())), tmp_path / "out")

    assert hashlib.sha256(student.read_bytes()).hexdigest() == digest
    (frozen,), fresh = opened, load(student).network
    for used, untouched in (
        (frozen.checkpoint.network, fresh),
        (frozen.network, folded(fresh)),
    ):
        before = untouched.state_dict()
        assert all(torch.equal(v, before[k]) for k, v in used.state_dict().items())
        assert all(p.grad is None for p in used.parameters())
    trained = load(kept)
    assert trained.network_name == network
    assert trained.spec["masks"] == [{"model": "fast_mobilenet_v2", "sha256": digest}]
    start = make_network(network).state_dict() | fresh.state_dict()
    assert not torch.equal(trained.network.state_dict()[learnt], start[learnt])


def test_folded_network_is_the_same_function(planted):
    network = planted("fast_mobilenet_v2")
    fold, x = folded(network), torch.randn(2, 3, 37, 50)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold.modules())
    with torch.no_grad():
        assert torch.allclose(fold(x), network(x), rtol=1e-4)


def test_network_that_cannot_be_folded_is_taken_as_it_is():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    network = Branches()
    assert folded(network) is network


@pytest.mark.parametrize("sparseness", [0.0, 5.0])
def test_saliency_loss_is_the_distance_to_the_clean_answer_and_the_mean_of_the_mask(sparseness):
    of, clean = saliency_loss(Says(), sparseness), batch([2.0, 2.0], [0.0, 0.0])
    x = normalised_pixels(clean["image"])
    expected = three_term(Says()(0.4 * x), Says()(x)) + sparseness * 0.4
    assert of(Shows(0.4), clean).item() == pytest.approx(expected.item(), abs=1e-5)
    assert of(Shows(1.0), clean).item() == pytest.approx(-2.0794 + sparseness, abs=1e-4)


@pytest.mark.parametrize(("sparseness", "sign"), [(0.0, -1), (50.0, 1)])
def test_mask_opens_for_depth_and_closes_for_sparseness(sparseness, sign):
    mask = Shows(0.4)
    saliency_loss(Says(), sparseness)(mask, batch([2.0], [0.0])).backward()
    assert mask.part.grad.sign() == sign


def test_noise_of_an_image_is_within_the_settings_and_its_share_of_the_images():
    settings = DefenceSettings(sources=SOMETHING, epsilon=(0.1, 0.2), iterations=(2, 4))
    draws = [drawn(settings)(None, np.random.default_rng(i)) for i in range(400)]
    epsilon = np.array([d["epsilon"].item() for d in draws])
    assert 0.4 < (epsilon > 0).mean() < 0.6
    assert epsilon[epsilon > 0].min() > 0.1 and epsilon.max() < 0.2
    assert {int(d["iterations"]) for d in draws} == {2, 3, 4}


def test_attacked_images_are_those_with_an_epsilon_and_the_others_are_bit_equal():
    given = batch([2.0, 2.0], [0.0, 0.1])
    x, away_from = normalised_pixels(given["image"]), torch.full((2, 1, 8, 12), 2.0)
    attacked = under_attack(Says(), x, away_from, given)
    assert torch.equal(attacked[0], x[0])
    alone = ifgsm(spoiling(Says(), away_from[1:]), x[1:], 0.1, 2)
    assert torch.allclose(attacked[1:], alone)
    assert (attacked[1] != x[1]).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["truth", "own"])
def test_defence_learns_truth_where_there_is_one_and_the_clean_answer_elsewhere_or_if_asked(kind):
    """The attack leads away from truth in either case, and from beside the answer without any."""
    settings = DefenceSettings(sources=SOMETHING, sparseness=0.5, target=kind)
    given = batch([2.0, 0.0], [0.1, 0.1])
    x = normalised_pixels(given["image"])
    own = nn.functional.interpolate(Says()(x), (8, 12), mode="bilinear")
    attacked = under_attack(Says(), x, torch.cat([given["truth"][:1], 0.99 * own[1:]]), given)
    depth = nn.functional.interpolate(Says()(0.4 * attacked), (8, 12), mode="bilinear")
    target = own if kind == "own" else torch.cat([given["truth"][:1], own[1:]])
    expected = three_term(depth, target) + 0.5 * 0.4
    value = defence_loss(Says(), settings)(Shows(0.4), given)
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)


def test_attack_on_a_network_that_is_trained_leaves_its_statistics_and_frozen_parts():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).train()
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    with evaluating(network):
        network(torch.randn(2, 3, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert [m.training for m in network] == [True, True, False]


def test_network_trained_under_attack_begins_with_the_weights_and_input_of_the_one_attacked(
    student, plane_folder, tmp_path
):
    loop = replace(LOOP, steps=1, lr=0.0, encoder_lr=0.0, weight_decay=0.0)
    settings = DefenceSettings(**options(student, plane_folder(), learns="model", loop=loop))
    settings = replace(settings, initial="")
    trained, own = load(defence.train(settings, tmp_path / "still")), load(student)
    assert trained.network_name == own.network_name
    assert trained.spec == {k: v for k, v in own.spec.items() if k != "name"}
    weights = dict(own.network.named_parameters())
    for name, value in trained.network.named_parameters():
        assert torch.allclose(value, weights[name], atol=1e-6), name
    moved = load(defence.train(replace(settings, loop=LOOP), tmp_path / "moved")).network
    assert not torch.allclose(moved.refine[1].weight, own.network.refine[1].weight, atol=1e-4)


@pytest.mark.parametrize(("pixels", "part"), [(96 * 64, 1.0), (48 * 32, 0.5)])
def test_truth_and_scale_are_those_that_the_depth_network_sees(student, plane_folder, pixels, part):
    """Its focal length is 250 px whatever the window; a window is cut out, and not shrunk."""
    folder, fabric = plane_folder(number=1), make_fabric(LOOP)
    settings = SaliencySettings(**options(student, folder, smallest_crop=1.0, pixels=pixels))
    seen = []
    given = make_batches(
        settings, open_frozen(str(student), fabric), fabric,
        lambda view, rng: seen.append(view) or {},
    )  # fmt: skip
    given.sizes = ((round(96 * part), round(72 * part)),)
    truth = given[0]["truth"][0, 0]
    camera = seen[0].camera
    assert camera.focal_px == pytest.approx(60 * 96 / 64, rel=1e-6)
    metres = truth[truth > 0] * camera.focal_px / 250
    own = given.stored[0][0].truth_mm / 1000
    assert own.min() - 0.01 < metres.min() and metres.max() < own.max() + 0.01


def test_images_without_depth_may_be_trained_on(student, plane_folder, tmp_path):
    folder = plane_folder()
    source = Source(str(folder), truth=False)
    settings = SaliencySettings(**options(student, folder, sources=(source,)))
    assert load(saliency.train(settings, tmp_path)).network_name == settings.network


def test_sizes_are_whole_cells_of_about_the_same_area():
    for width, height in sizes_of(160 * 120):
        assert width % 4 == height % 4 == 0
        assert width * height == pytest.approx(160 * 120, rel=0.05)


def test_what_gives_no_depth_alone_is_refused_as_the_depth_network(tmp_path, planted):
    fabric = make_fabric(LOOP)
    for name, spec, message in (
        ("completion_mobilenet_v2", {"focal_px": 50.0}, "metric depth from images alone"),
        ("fast_mobilenet_v2", {"metric": False, "focal_px": 50.0}, "metric depth from images"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save(path, Checkpoint(name, planted(name), spec))
        with pytest.raises(ConfigError, match=message):
            open_frozen(str(path), fabric)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": (0.3, 0.1)}, "epsilon: expected two numbers from 0 up, the lower first"),
        ({"iterations": (0, 3)}, "iterations: expected two numbers from 1 up"),
        ({"sources": ()}, "sources: expected at least one data set"),
        ({"network": "mff_resnet50"}, "network: expected a mask network, saliency_drn22, .*, got"),
    ],
)
def test_settings_that_make_no_attack_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        DefenceSettings(**{"sources": SOMETHING, **given})


@pytest.mark.parametrize(("steps", "threshold"), [(100, 1.98), (10_000, 0.03)])
def test_alarm_is_above_all_but_one_clean_frame_in_a_hundred_and_above_what_is_no_news(
    student, tmp_path, monkeypatch, steps, threshold
):
    """Disagreements 0, 1, … 199 in hundredths, or in ten-thousandths: two may be above."""
    answers = iter(np.random.default_rng(0).permutation(200) / steps)
    stub = SimpleNamespace(disagreement=None)

    def pipeline(frame):
        stub.disagreement = next(answers)
        return stub

    monkeypatch.setattr(masks, "DepthPipeline", lambda settings: pipeline)
    monkeypatch.setattr(
        validation, "open_dataset", lambda path: [SimpleNamespace(frame=None)] * 200
    )
    kept = tmp_path / "mask.safetensors"
    save(kept, Checkpoint("fast_mobilenet_v2", load(student).network, {"name": "any"}))
    held = (HeldOut(str(tmp_path), every=1),)
    fit_alarm(kept, SaliencySettings(**options(student, tmp_path, held_out=held)))
    assert load(kept).spec["alarm"] == {"threshold": threshold, "false_alarm_rate": 0.01}
    assert load(kept).spec["name"] == "any"


def test_alarm_of_a_training_is_the_disagreement_that_the_robot_sees(
    student, plane_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(masks, "LEAST_ALARM", 0.0)
    folder = plane_folder(number=3)
    held = (HeldOut(str(folder), every=1),)
    kept = saliency.train(
        SaliencySettings(**options(student, folder, held_out=held)), tmp_path / "out"
    )
    given = PipelineSettings(
        model=str(student), mask=str(kept), defence="monitor", device="cpu", threads=1
    )
    pipeline = DepthPipeline(given)
    seen = [pipeline(sample.frame).disagreement for sample in open_dataset(folder)]
    assert load(kept).spec["alarm"]["threshold"] == pytest.approx(max(seen), rel=1e-4)
    assert pipeline.alarm.false_alarm_rate == 0.01


def test_masks_module_names_what_a_mask_belongs_to(student):
    frozen = open_frozen(str(student), make_fabric(LOOP))
    assert masks.mask_spec(frozen)["name"] == "fast_mobilenet_v2-mask"
    assert frozen.pixels == 96 * 64
