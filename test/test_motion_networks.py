"""The motion and scale networks of CVPR 2024 against what is known of them (METHODS 8)."""

import math

import pytest
import torch

from mde_ros.networks.motion import (
    LightScaleNet,
    MotionNet,
    ScaleNet,
    convex_upsampling,
    correlation,
    look_up,
)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_those_of_raft_and_of_resnet18_with_five_channels_and_the_head():
    assert parameters(MotionNet()) == 5_257_536  # RAFT, full size
    head = (512 + 1) * 256 + (256 + 1) * 128 + 128 + 1
    assert parameters(ScaleNet()) == 11_176_512 + 2 * 64 * 49 + head
    assert parameters(MotionNet(light=True)) < parameters(MotionNet()) / 10


@pytest.mark.parametrize("size", [(64, 96), (40, 72)])
def test_motion_has_the_size_of_the_images(size):
    images = torch.randn(2, 2, 3, *size)
    assert MotionNet(light=True).eval()(*images).shape == (2, 2, *size)


def test_a_map_that_is_shifted_is_most_alike_where_it_was_shifted_to():
    """Random features: what moved by (3, -1) is found 3 to the right and 1 up, and only there."""
    rng = torch.Generator().manual_seed(0)
    second = torch.randn(1, 64, 12, 20, generator=rng)
    u, v = 3, -1
    first = torch.roll(second, (-v, -u), (2, 3))
    found = look_up(correlation(first, second, 1), torch.zeros(1, 2, 12, 20), 4)
    inner = found[0, :, 4:8, 4:12]
    best = inner.argmax(0)
    rows, columns = best // 9 - 4, best % 9 - 4
    assert (rows == v).all() and (columns == u).all()
    # Half of its motion known, the rest is left to be found.
    known = torch.zeros(1, 2, 12, 20)
    known[:, 0], known[:, 1] = u, v
    centre = look_up(correlation(first, second, 1), known, 4)[0, 40, 4:8, 4:12]
    assert torch.allclose(centre, inner.amax(0), atol=1e-4)


def test_coarse_levels_are_means_of_fine_ones_around_the_same_place():
    rng = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 1, 8, 8, 16, generator=rng)
    fine, coarse = correlation(first, second, 2)
    assert torch.allclose(coarse[:, 0, 1, 3], fine[:, 0, 2:4, 6:8].mean((1, 2)), atol=1e-5)
    # Pixel (2.5, 6.5) of the fine map is the middle of pixel (1, 3) of the coarse one.
    motion = torch.zeros(1, 2, 8, 16)
    v, u = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    motion[0, 0], motion[0, 1] = 6.5 - u, 2.5 - v
    seen = look_up([fine, coarse], motion, 0)
    assert torch.allclose(seen[0, 1].flatten(), coarse[:, 0, 1, 3], atol=1e-4)


def test_upsampling_keeps_a_motion_that_is_the_same_everywhere_in_full_pixels():
    rng = torch.Generator().manual_seed(2)
    motion = torch.tensor([0.5, -0.25]).view(1, 2, 1, 1).expand(1, 2, 3, 5)
    fine = convex_upsampling(motion, torch.randn(1, 576, 3, 5, generator=rng))
    assert fine.shape == (1, 2, 24, 40)
    assert torch.allclose(fine[0].mean((1, 2)), torch.tensor([4.0, -2.0]), atol=1e-5)
    assert fine.flatten(2).std(2).max() < 1e-5


def test_upsampling_with_all_weight_on_the_middle_repeats_each_motion_in_its_own_cell():
    weights = torch.full((1, 9, 64, 2, 2), -1e4)
    weights[:, 4] = 0
    motion = torch.arange(8.0).view(1, 2, 2, 2)
    fine = convex_upsampling(motion, weights.view(1, 576, 2, 2))
    assert torch.equal(fine, 8 * motion.repeat_interleave(8, 2).repeat_interleave(8, 3))


@pytest.mark.parametrize("network", [ScaleNet, LightScaleNet])
def test_the_scale_of_an_object_does_not_depend_on_the_others_of_its_batch(network):
    torch.manual_seed(3)
    network = network().train()
    x = torch.randn(3, 5, 32, 64)
    alone = torch.cat([network(one[None]) for one in x])
    assert torch.allclose(network(x), alone, atol=1e-4)


def test_the_light_scale_network_begins_with_the_mean_of_all_ground_and_needs_none():
    network, x = LightScaleNet(), torch.zeros(2, 5, 16, 32)
    x[0, 3, 8:12], x[0, 3, 12:] = 8.0, 2.0
    x[0, 3:, 8:12, :16] = 1.0  # an object before half of the far ground
    expected = (64 * math.log(8) + 128 * math.log(2)) / 192
    assert network(x).tolist() == pytest.approx([expected, 0], abs=1e-5)
