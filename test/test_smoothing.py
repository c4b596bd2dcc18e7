"""The mask of the shipped defence: cheap, in [0, 1], and smooth where there is noise."""

import pytest
import torch

from mde_ros.networks import make_network
from mde_ros.networks.describe import multiply_adds
from mde_ros.networks.smoothing import averaged

NAME = "defence_mobilenet_v2"


def on_meta(name):
    with torch.device("meta"):
        return make_network(name).eval()


@pytest.mark.parametrize(("height", "width"), [(228, 304), (97, 131), (35, 34)])
def test_mask_has_the_size_of_the_input_odd_sizes_included(height, width):
    mask = on_meta(NAME)(torch.empty(2, 3, height, width, device="meta"))
    assert mask.shape == (2, 1, height, width)


@torch.no_grad()
def test_mask_lies_between_zero_and_one_whatever_the_image(planted):
    for scale in (0.0, 1.0, 10.0):
        mask = planted(NAME)(scale * torch.randn(1, 3, 37, 50))
        assert mask.min() >= 0 and mask.max() <= 1


def test_mask_costs_at_most_a_fifth_more_than_the_student():
    costs = [multiply_adds(on_meta(n), 304, 228) for n in (NAME, "fast_mobilenet_v2")]
    assert costs[0] <= 1.2 * costs[1]


def test_mask_takes_the_trunk_of_the_student():
    own, theirs = (on_meta(n).state_dict() for n in (NAME, "fast_mobilenet_v2"))
    different = [k for k in own if k not in theirs or own[k].shape != theirs[k].shape]
    assert {k.rpartition(".")[0] for k in different} == {"refine.1", "noise"}


@torch.no_grad()
def test_mask_begins_by_showing_what_is_clean_and_taking_back_what_an_attack_adds():
    network = make_network(NAME).eval()
    assert network(torch.linspace(0.5, 2, 50).expand(1, 3, 37, 50)).min() > 0.95
    signs = torch.randint(0, 2, (1, 1, 37, 50), generator=torch.manual_seed(0)) * 2 - 1.0
    spoilt = (1 + 0.2 * signs).expand(1, 3, 37, 50)
    # What an attack has made too dark cannot be shown brighter: half of it stays.
    assert (spoilt * network(spoilt)).std() < 0.6 * spoilt.std()


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "box"), [(7, 9, 3), (4, 30, 9)])
def test_averages_are_of_the_pixels_within_the_image(height, width, box):
    x = torch.randn(1, 2, height, width, generator=torch.manual_seed(0))
    got, half = averaged(x, box), box // 2
    for v, u in ((0, 0), (height - 1, width // 2), (height // 2, width - 1)):
        rows, columns = slice(max(0, v - half), v + half + 1), slice(max(0, u - half), u + half + 1)
        assert torch.allclose(got[..., v, u], x[..., rows, columns].mean((2, 3)), atol=1e-6)
