"""Mask networks: published sizes, masks of the input's size, DRN against its authors' layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mde_ros.networks import MASKS, make_network
from mde_ros.networks.backbones import load_imagenet
from mde_ros.networks.describe import multiply_adds
from mde_ros.networks.drn import Drn

LIGHT = ("saliency_mobilenet_v2", "defence_smoothing")


def on_meta(name):
    with torch.device("meta"):
        return make_network(name).eval()


@pytest.mark.parametrize("name", MASKS)
def test_mask_has_the_size_of_the_input_odd_sizes_included(name):
    network = on_meta(name)
    for height, width in ((228, 304), (97, 131), (35, 34)):
        mask = network(torch.empty(2, 3, height, width, device="meta"))
        assert mask.shape == (2, 1, height, width)


@torch.no_grad()
@pytest.mark.parametrize("name", ["saliency_drn22", *LIGHT])
def test_mask_lies_between_zero_and_one_whatever_the_image(planted, name):
    mask = planted(name)(10 * torch.randn(1, 3, 37, 50))
    assert mask.min() >= 0 and mask.max() <= 1 and mask.std() > 0


@pytest.mark.parametrize("name", LIGHT)
def test_light_mask_network_costs_at_most_a_fifth_more_than_the_student(name):
    costs = [multiply_adds(on_meta(n), 304, 228) for n in (name, "fast_mobilenet_v2")]
    assert costs[0] <= 1.2 * costs[1]


@torch.no_grad()
def test_light_saliency_begins_with_half_of_every_pixel():
    mask = make_network("saliency_mobilenet_v2").eval()(torch.randn(1, 3, 37, 50))
    assert torch.equal(mask, torch.full((1, 1, 37, 50), 0.5))


def test_light_saliency_network_takes_the_trunk_of_the_student():
    student, mask = on_meta("fast_mobilenet_v2"), on_meta("saliency_mobilenet_v2")
    own, theirs = mask.state_dict(), student.state_dict()
    different = [k for k in own if k not in theirs or own[k].shape != theirs[k].shape]
    assert {k.rpartition(".")[0] for k in different} == {"refine.1"}


@torch.no_grad()
def test_dilated_layers_are_the_strided_ones_of_a_resnet_on_every_fourth_place(planted):
    """Dilating by 4 is a common convolution on each of the 4×4 sub-grids of the map."""
    layer = planted("saliency_drn22").encoder.layer6[1]
    x = torch.randn(1, 512, 8, 12)
    whole = layer(x)

    def plain(part):
        y = F.conv2d(part, layer.conv1.weight, padding=1)
        y = F.conv2d(F.relu(layer.bn1(y)), layer.conv2.weight, padding=1)
        return F.relu(part + layer.bn2(y))

    for row in range(4):
        for column in range(4):
            part = plain(x[..., row::4, column::4])
            assert torch.allclose(whole[..., row::4, column::4], part, atol=1e-4)


@pytest.mark.parametrize(("depth", "layers"), [(22, 22), (38, 38), (54, 54)])
def test_depth_of_a_drn_counts_its_convolutions_and_the_classifier(depth, layers):
    """Shortcuts do not count; the maps are at 1/2, 1/4 and 1/8."""
    with torch.device("meta"):
        network = Drn(depth)
        maps = network(torch.empty(1, 3, 96, 128))
    main = [
        m for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n
    ]
    assert len(main) + 1 == layers
    assert [tuple(m.shape[2:]) for m in maps] == [(48, 64), (24, 32), (12, 16)]


def test_public_imagenet_weights_load_into_a_drn_by_their_keys():
    """The names of the authors' files, written out; their classifier `fc` is ignored."""
    encoder = make_network("saliency_drn22").encoder
    own = encoder.state_dict()
    residual = [f"layer{i}.{b}" for i in (3, 4, 5, 6) for b in (0, 1)]
    expected = {f"layer{i}.0.weight" for i in (0, 1, 2, 7, 8)}
    expected |= {f"{block}.conv{c}.weight" for block in residual for c in (1, 2)}
    expected |= {f"layer{i}.0.downsample.0.weight" for i in (3, 4, 5, 6)}
    assert {k for k, v in own.items() if v.ndim == 4} == expected
    weights = {k: torch.rand_like(v.float()) for k, v in own.items()}
    load_imagenet(encoder, {**weights, "fc.weight": torch.zeros(1000, 512, 1, 1)})
    assert torch.equal(encoder.layer6[1].conv2.weight, weights["layer6.1.conv2.weight"])
