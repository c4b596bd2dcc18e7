"""The mask of the shipped defence: in [0, 1], and smooth where there is noise."""

import pytest
import torch

from mde_ros.networks import make_network
from mde_ros.networks.smoothing import averaged

NAME = "defence_smoothing"


@torch.no_grad()
def test_mask_lies_between_zero_and_one_whatever_the_image(planted):
    for scale in (0.0, 1.0, 10.0):
        mask = planted(NAME)(scale * torch.randn(1, 3, 37, 50))
        assert mask.min() >= 0 and mask.max() <= 1


@torch.no_grad()
def test_mask_begins_by_showing_what_is_clean_and_taking_back_what_an_attack_adds():
    network = make_network(NAME).eval()
    assert network(torch.linspace(0.5, 2, 50).expand(1, 3, 37, 50)).min() > 0.95
    signs = torch.randint(0, 2, (1, 1, 37, 50), generator=torch.manual_seed(0)) * 2 - 1.0
    spoilt = (1 + 0.2 * signs).expand(1, 3, 37, 50)
    # What an attack has made too dark cannot be shown brighter: half of it stays.
    assert (spoilt * network(spoilt)).std() < 0.6 * spoilt.std()


@torch.no_grad()
def test_what_is_rough_is_no_attack_as_long_as_the_image_is_plain_somewhere():
    network = make_network(NAME).eval()
    signs = torch.randint(0, 2, (1, 1, 96, 128), generator=torch.manual_seed(0)) * 2 - 1.0
    rough = (1 + 0.3 * signs).expand(1, 3, 96, 128).clone()
    rough[..., :30, :40] = 1.0
    assert network(rough).min() > 0.9
    assert network(rough + 0.1 * signs).min() < 0.7


@torch.no_grad()
@pytest.mark.parametrize("level", [0.0, 3.0, -3.0])
def test_half_precision_sees_the_same_noise(level):
    network = make_network(NAME).eval()
    x = level + 0.2 * torch.randn(1, 3, 64, 96, generator=torch.manual_seed(0))
    half = network.half()(x.half()).float()
    assert torch.allclose(half, network.float()(x), atol=0.02)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "box"), [(7, 9, 3), (4, 30, 9)])
def test_averages_are_of_the_pixels_within_the_image(height, width, box):
    x = torch.randn(1, 2, height, width, generator=torch.manual_seed(0))
    got, half = averaged(x, box), box // 2
    for v, u in ((0, 0), (height - 1, width // 2), (height // 2, width - 1)):
        rows, columns = slice(max(0, v - half), v + half + 1), slice(max(0, u - half), u + half + 1)
        assert torch.allclose(got[..., v, u], x[..., rows, columns].mean((2, 3)), atol=1e-6)
