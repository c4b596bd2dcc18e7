"""The published recipe: its schedule, its transforms and its loss at half resolution."""

import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.checkpoint import load
from mde_ros.cli import main
from mde_ros.config import ConfigError
from mde_ros.datasets.published import nyu
from mde_ros.datasets.transforms import View
from mde_ros.frame import Camera
from mde_ros.training.batches import Source
from mde_ros.training.loop import rate
from mde_ros.training.supervised import (
    SupervisedSettings,
    paper_schedule,
    supervised_loss,
)

SOMETHING = (Source("anywhere"),)


def test_schedule_is_the_published_one():
    """20 epochs of 50,688 images, batch 8, ×0.1 every 5 epochs, Adam 1e-4 with decay 1e-4."""
    s, epoch = paper_schedule(), 50_688 // 8
    assert (s.batch, s.steps, s.optimizer, s.lr, s.encoder_lr) == (
        8,
        20 * epoch,
        "adam",
        1e-4,
        1e-4,
    )
    assert (s.weight_decay, s.ema, s.clip) == (1e-4, 0.0, 0.0)
    factors = [rate(s, k * epoch) for k in (0, 4, 5, 10, 15, 19)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01, 0.001, 0.001])


def view(width, height, focal):
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    depth = np.full((height, width), 2.5, np.float32)
    image = np.full((height, width, 3), 128, np.uint8)
    return View(image, depth, np.zeros_like(depth), Camera(width, height, K))


@pytest.mark.parametrize("size", [(640, 480), (1242, 375), (300, 500)])
def test_any_image_becomes_a_crop_of_the_image_at_240_rows_or_what_the_crop_needs(size):
    out = nyu(view(*size, focal=519.0), np.random.default_rng(0), 304, 228)
    scale = max(240 / size[1], 304 / size[0])
    assert out.image.shape == (228, 304, 3) and out.image.dtype == np.float32
    assert out.camera.focal_px == pytest.approx(519 * scale, rel=5e-3)
    assert set(np.unique(out.truth_m)) <= {0.0, 2.5} and (out.truth_m == 2.5).mean() > 0.9


class Says(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 1, x.shape[2] // 2, x.shape[3] // 2), 2.0)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0), (0.0, 0.0)])
def test_loss_is_at_its_floor_for_a_perfect_prediction_at_half_resolution(weights):
    s = SupervisedSettings(sources=SOMETHING, gradient_weight=weights[0], normal_weight=weights[1])
    truth = torch.full((2, 1, 12, 16), 2.0)
    batch = {"image": torch.zeros(2, 12, 16, 3, dtype=torch.uint8), "truth": truth}
    value = supervised_loss(s)(Says(), batch)
    assert value.item() == pytest.approx(np.log(0.5) * (1 + 2 * weights[0]), abs=1e-5)


def test_holes_of_the_truth_stay_holes_at_half_resolution():
    """Nearest, not averaged: 0 mixed with 2 m would be an invented metre."""
    truth = torch.full((1, 1, 12, 16), 2.0)
    truth[..., ::2, 1::2] = 0
    truth[..., 1::2, ::2] = 0
    batch = {"image": torch.zeros(1, 12, 16, 3, dtype=torch.uint8), "truth": truth}
    s = SupervisedSettings(sources=SOMETHING, gradient_weight=0.0, normal_weight=0.0)
    assert supervised_loss(s)(Says(), batch).item() == pytest.approx(np.log(0.5), abs=1e-5)


def test_no_data_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="sources: expected at least one labelled data set"):
        SupervisedSettings()


def test_command_trains_with_file_and_flags_and_goes_on_where_it_stopped(
    plane_folder, tmp_path, capsys
):
    config = tmp_path / "recipe.yaml"
    config.write_text(
        f"network: fast_mobilenet_v2\nsources: [{{path: {plane_folder()}}}]\nsize: [64, 48]\n"
        "loop: {steps: 99, batch: 2, device: cpu, threads: 1, workers: 0, lr: 0.001}\n"
    )
    command = ["train", "supervised", "--config", str(config), "--out", str(tmp_path / "out")]
    assert main([*command, "--set", "loop.steps=2"]) == 0
    assert main([*command, "--set", "loop.steps=3"]) == 0
    printed = capsys.readouterr()
    model = tmp_path / "out/model.safetensors"
    assert printed.out.splitlines()[-1] == str(model)
    assert "resuming at step 2 of 3" in printed.err.replace("\n", " ")
    kept = load(model)
    assert kept.settings["loop"]["steps"] == 3 and kept.settings["loop"]["lr"] == 0.001
    assert main([*command, "--set", "gradient_weight=0.5"]) == 2
    assert "gradient_weight = 0.5, got one with 1.0" in capsys.readouterr().err
    assert kept.spec["focal_px"] == 259.5 and kept.spec["pixels"] == 64 * 48
