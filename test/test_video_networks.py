"""The networks of depth from video against their publications' layer lists (METHODS 9, 11)."""

import pytest
import torch
import torch.nn.functional as F

from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.networks import demands, make_network
from mde_ros.networks.video import (
    DetailEmphasis,
    PoseNet,
    StructurePerception,
    depth_of,
)

VIDEO = ("monodepth2_resnet18", "cadepth_resnet50", "video_mobilenet_v2")


def on_meta(make):
    with torch.device("meta"):
        return make()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def conv(cin, cout, kernel=3):
    return kernel**2 * cin * cout + cout


def test_disparity_0_is_100_m_and_1_is_10_cm():
    assert torch.allclose(depth_of(torch.tensor([0.0, 1.0])), torch.tensor([100.0, 0.1]))


@pytest.mark.parametrize("name", VIDEO)
def test_training_gives_four_disparities_and_use_the_depth_of_the_finest(name, planted):
    network = planted(name)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        depth = network(x)
        network.train()
        for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.eval()
        disparities = network(x)
    finest = 2 if name == "video_mobilenet_v2" else 1
    sizes = [(2, 1, 64 // finest // 2**s, 96 // finest // 2**s) for s in range(4)]
    assert [tuple(d.shape) for d in disparities] == sizes
    assert all(((d > 0) & (d < 1)).all() for d in disparities)
    assert torch.allclose(depth, depth_of(disparities[0]), rtol=1e-5)
    network.eval().scale.fill_(3.0)
    with torch.no_grad():
        assert torch.allclose(network(x), 3 * depth, rtol=1e-5)


@pytest.mark.parametrize(("name", "depth"), [("monodepth2_resnet18", 1), ("cadepth_resnet50", 4)])
def test_decoder_has_the_parameters_of_its_papers_layer_list(name, depth):
    widths, maps = (16, 32, 64, 128, 256), [64, *(depth * c for c in (64, 128, 256, 512))]
    expected = 0
    for i, width in enumerate(widths):
        before = widths[i + 1] if i < 4 else maps[4]
        joined = width + (maps[i - 1] if i else 0)
        expected += conv(before, width) + conv(joined, width)
        expected += conv(width, 1) if i < 4 else 0
        if depth == 4:  # detail emphasis: convolution, batch norm, two 1x1
            expected += conv(joined, joined) + 2 * joined + 2 * conv(joined, joined, 1)
    assert parameters(on_meta(lambda: make_network(name)).decoder) == expected


def test_the_light_network_is_less_than_a_seventh_of_monodepth2():
    light, published = (on_meta(lambda n=n: make_network(n)) for n in (VIDEO[2], VIDEO[0]))
    assert parameters(light) < parameters(published) / 7


def test_structure_perception_is_the_row_softmax_of_largest_energy_minus_energy():
    x = torch.randn(2, 5, 3, 4)
    out = StructurePerception()(x)
    for image, ours in zip(x.flatten(2), out.flatten(2)):
        energy = image @ image.T
        rows = [torch.softmax(row.max() - row, 0) for row in energy]
        assert torch.allclose(torch.stack(rows) @ image + image, ours, atol=1e-5)


def test_detail_emphasis_raises_a_channel_by_at_most_its_own_value():
    block, x = DetailEmphasis(6).eval(), torch.randn(1, 6, 7, 8)
    y = F.relu(block.bn(block.conv(x)))
    ratio = (block(x) / y)[y > 1e-3]
    assert (ratio > 1).all() and (ratio < 2).all()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_pose_net_starts_with_half_the_weights_for_either_frame(backbone):
    torch.manual_seed(0)
    network = PoseNet(backbone).eval()
    a, b = torch.randn(2, 1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(network(a, b), network(b, a), atol=1e-7)
        assert network(a, b).shape == (1, 6) and network(a, b).abs().max() < 0.01


@pytest.mark.parametrize("name", VIDEO)
def test_a_checkpoint_of_a_fresh_network_says_that_its_depth_is_relative(name, tmp_path):
    network = on_meta(lambda: make_network(name))
    assert demands(network) == {"metric": False, "multiple": 32}
    if name == "video_mobilenet_v2":
        save(tmp_path / "m.safetensors", Checkpoint(name, make_network(name)))
        assert load(tmp_path / "m.safetensors").spec == {"metric": False, "multiple": 32}
