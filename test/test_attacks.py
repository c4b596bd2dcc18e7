"""Attacks: the ball, the image's range, closed forms of one step, and what stays as it was."""

import math

import pytest
import torch
from torch import nn

from mde_ros.attacks import OBJECTIVES, fgsm, ifgsm, patch, spoiling
from mde_ros.losses import three_term
from mde_ros.model import IMAGENET_STD


def images(number=2, height=12, width=16):
    torch.manual_seed(1)
    return torch.randn(number, 3, height, width)


def toy(seed):
    """A small smooth network of random weights: image → depth at half size."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 8, 3, 1, 1),
        nn.Tanh(), nn.Conv2d(8, 1, 3, 1, 1), nn.Softplus(),
    ).eval()  # fmt: skip


def clamped(values, x):
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return torch.minimum(torch.maximum(values, low), high)


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("alpha", [1.0, 0.01])
@pytest.mark.parametrize("epsilon", [0.01, 0.3])
def test_attacked_image_stays_in_the_ball_and_in_the_images_own_range(iterations, alpha, epsilon):
    x = images()
    loss_of = spoiling(toy(0), torch.full((2, 1, 12, 16), 0.8))
    attacked = ifgsm(loss_of, x, epsilon, iterations, alpha)
    assert (attacked - x).abs().max() <= epsilon * (1 + 1e-4)
    assert torch.equal(clamped(attacked, x), attacked)
    assert (attacked - x).abs().max() >= 0.99 * min(epsilon, alpha)


@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_one_step_is_the_image_plus_epsilon_times_the_sign_of_the_gradient(epsilon):
    x, weights = images(), torch.randn(2, 3, 12, 16)
    for attacked in (
        fgsm(lambda z: (weights * z).sum(), x, epsilon),
        ifgsm(lambda z: (weights * z).sum((1, 2, 3)), x, epsilon, 1),
    ):
        assert torch.equal(attacked, clamped(x + epsilon * weights.sign(), x))


def test_patch_in_the_middle_is_all_that_its_attack_changes():
    x, weights = images(), torch.randn(2, 3, 12, 16)
    where = patch(0.5, x)
    expected = torch.zeros(1, 1, 12, 16)
    expected[..., 3:9, 5:11] = 1
    assert torch.equal(where, expected)
    attacked = ifgsm(lambda z: (weights * z).sum(), x, 0.2 * where, 3)
    whole = ifgsm(lambda z: (weights * z).sum(), x, 0.2, 3)
    assert torch.equal(attacked, torch.where(where > 0, whole, x))


def test_small_steps_add_up_until_they_reach_the_ball():
    x, weights = images(), torch.randn(2, 3, 12, 16)
    three = ifgsm(lambda z: (weights * z).sum(), x, 0.1, 3, alpha=0.02)
    assert torch.allclose(three, clamped(x + 0.06 * weights.sign(), x), atol=1e-6)
    nine = ifgsm(lambda z: (weights * z).sum(), x, 0.1, 9, alpha=0.02)
    assert torch.allclose(nine, clamped(x + 0.1 * weights.sign(), x), atol=1e-6)


def test_each_image_may_have_an_epsilon_of_its_own():
    x, epsilon = images(), torch.tensor([0.02, 0.2]).view(2, 1, 1, 1)
    attacked = fgsm(lambda z: z.sum(), x, epsilon)
    assert (attacked - x).amax((1, 2, 3)).tolist() == pytest.approx([0.02, 0.2], rel=1e-4)


def test_epsilon_in_unit_space_is_of_pixel_values_before_normalisation():
    x = 0.5 * images()
    attacked = fgsm(lambda z: z.sum(), x, 2 / 255, space="unit")
    moved = (attacked - x).amax((0, 2, 3))
    assert moved.tolist() == pytest.approx([2 / 255 / s for s in IMAGENET_STD], rel=1e-4)
    with pytest.raises(ValueError, match="space: expected one of normalised, unit, got 'pixels'"):
        fgsm(lambda z: z.sum(), x, 0.1, space="pixels")


@pytest.mark.parametrize("seed", range(5))
def test_ten_steps_are_not_weaker_than_one(seed):
    network, x = toy(seed), images(4)
    loss_of = spoiling(network, torch.full((4, 1, 12, 16), 0.8))
    losses = [loss_of(ifgsm(loss_of, x, 0.3, n)).mean().item() for n in (0, 1, 10)]
    assert losses[0] < losses[1] <= losses[2]


def test_attack_on_the_clean_answer_moves_only_beside_it():
    network, x = toy(0), images()
    with torch.no_grad():
        said = network(x)
    assert torch.equal(ifgsm(spoiling(network, said), x, 0.1, 5), x)
    begun = ifgsm(spoiling(network, 0.99 * said), x, 0.1, 5)
    assert (begun != x).float().mean() > 0.9


def test_attack_leaves_weights_statistics_and_gradients_of_the_network_as_they_are():
    network, x = toy(0), images()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.inference_mode(False), torch.no_grad():
        attacked = ifgsm(spoiling(network, torch.ones(2, 1, 12, 16)), x, 0.1, 3)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not attacked.requires_grad


def test_attack_on_the_whole_leaves_alone_what_its_mask_hides():
    """N sees nothing of the right half, so who knows the mask changes nothing there."""
    mask = torch.ones(1, 1, 12, 16)
    mask[..., 8:] = 0
    x, network = images(1), toy(0)
    target = torch.ones(1, 1, 12, 16)
    adaptive = ifgsm(spoiling(lambda z: network(z * mask), target), x, 0.1, 3)
    assert torch.equal(adaptive[..., 8:], x[..., 8:])
    assert (adaptive[..., :8] != x[..., :8]).float().mean() > 0.9
    unaware = ifgsm(spoiling(network, target), x, 0.1, 3)
    assert (unaware[..., 8:] != x[..., 8:]).float().mean() > 0.9


FORMS = {
    "l1": lambda d, t: abs(d - t),
    "l2": lambda d, t: (d - t) ** 2,
    "rel": lambda d, t: abs(d - t) / t,
    "log10": lambda d, t: abs(math.log10(d) - math.log10(t)),
}


@pytest.mark.parametrize("name", FORMS)
def test_objective_of_flat_maps_follows_its_formula_and_counts_valid_pixels_alone(name):
    depth, target = flat(3.0, 0.5), flat(2.0, 4.0)
    target[:, :, :3] = 0
    target[0, :, 3] = math.nan
    expected = [FORMS[name](3, 2), FORMS[name](0.5, 4)]
    assert OBJECTIVES[name](depth, target).tolist() == pytest.approx(expected, rel=1e-5)


def test_l_dif_of_each_image_is_the_loss_of_the_depth_network_for_it_alone():
    depth, target = flat(3.0, 4.0), flat(2.0, 4.0)
    first, second = OBJECTIVES["l_dif"](depth, target)
    assert first.item() == pytest.approx(three_term(depth[:1], target[:1]).item())
    assert second.item() == pytest.approx(3 * math.log(0.5), abs=1e-4)


def flat(*depths):
    """An 8×8 map of one depth for each image."""
    return torch.tensor(depths).view(-1, 1, 1, 1).repeat(1, 1, 8, 8)


def test_unknown_objective_lists_the_valid_ones():
    with pytest.raises(ValueError, match="expected one of l1, l2, rel, log10, l_dif, got 'l3'"):
        spoiling(toy(0), torch.ones(1, 1, 4, 4), "l3")
