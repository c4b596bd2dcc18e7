"""Networks against the published parameter counts and shapes (METHODS 1, 5, 11)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mde_ros.networks import NETWORKS, make_network
from mde_ros.networks.backbones import BACKBONES, load_imagenet, make_backbone
from mde_ros.networks.blocks import Gate, LightUp, UpProjection
from mde_ros.networks.describe import describe_all, multiply_adds

COUNTS = {
    "mff_resnet50": 67_569_473,
    "mff_resnet18": 14_883_825,
    "mff_senet154": 157_101_425,
    "light_resnet34": 21_918_977,
    "light_mobilenet_v2": 1_673_905,
    "fast_mobilenet_v2": 1_481_460,
}
PYRAMIDS = {  # channels and the size of each map of a 304x228 image, METHODS 1 and 5
    "resnet50": [(256, 57, 76), (512, 29, 38), (1024, 15, 19), (2048, 8, 10)],
    "senet154": [(256, 57, 76), (512, 29, 38), (1024, 15, 19), (2048, 8, 10)],
    "densenet161": [(192, 57, 76), (384, 28, 38), (1056, 14, 19), (2208, 7, 9)],
    "mobilenet_v2": [(24, 57, 76), (32, 29, 38), (96, 15, 19), (160, 8, 10)],
}


def on_meta(make):
    with torch.device("meta"):
        return make().eval()


@pytest.fixture(scope="module")
def described():
    return {row["name"]: row for row in describe_all()}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_is_the_published_one(name):
    network = on_meta(lambda: make_network(name))
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name]


def test_table_lists_every_network_with_its_count(described):
    assert list(described) == list(NETWORKS)
    assert {name: described[name]["parameters"] for name in COUNTS} == COUNTS
    assert described["fast_mobilenet_v2"]["gmac"] == pytest.approx(0.50, abs=0.005)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_encoder_maps_have_the_published_shapes(name):
    encoder = on_meta(lambda: make_backbone(name))
    maps = encoder(torch.empty(1, 3, 228, 304, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == PYRAMIDS[name]
    assert tuple(m.shape[1] for m in maps) == encoder.channels


@pytest.mark.parametrize("name", NETWORKS)
def test_output_is_half_the_input_at_any_size(name):
    """Odd sizes go to the next whole pixel at a quarter, as the strides do; SENet's rounds down."""
    network = on_meta(lambda: make_network(name))
    for height, width in ((228, 304), (64, 96), (97, 131), (101, 66), (35, 34)):
        out = network(torch.empty(2, 3, height, width, device="meta"))
        quarters = {out.shape[2] / 2 - height / 4, out.shape[3] / 2 - width / 4}
        assert out.shape[:2] == (2, 1) and max(map(abs, quarters)) < 1, (height, width)
        if name != "mff_senet154":
            assert tuple(out.shape[2:]) == (-(-height // 4) * 2, -(-width // 4) * 2)


def test_fast_student_gives_positive_depth_whatever_its_weights():
    torch.manual_seed(0)
    network = make_network("fast_mobilenet_v2").eval()
    for p in network.refine.parameters():
        p.data.mul_(1000)
    depth = network(torch.randn(1, 3, 64, 64))
    assert depth.isfinite().all() and (depth > 0).all()


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"mff_resnet50, .*fast_mobilenet_v2, got 'nn'"):
        make_network("nn")
    with pytest.raises(ValueError, match=r"resnet18, .*mobilenet_v2, got 'nn'"):
        make_backbone("nn")


def test_multiply_adds_of_a_known_stack_are_counted_by_hand():
    """3x3 3→8 at stride 2, grouped 3x3 8→8, 1x1 8→4 on 10x6, so 5x3 positions each."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1)
    )
    assert multiply_adds(network, 10, 6) == 15 * (9 * 3 * 8 + 9 * 8 + 8 * 4)


def test_light_block_convolves_before_it_resizes_and_up_projection_after():
    """A 5x5 mean of an impulse is 5 wide where the convolution ran: 5 fine or 5 coarse pixels."""
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 1
    like = torch.zeros(1, 1, 33, 33)  # corners aligned: a coarse pixel spans 4 fine ones
    widths = {}
    for block in (LightUp(1, 1).eval(), UpProjection(1, 1).eval()):
        for p in block.parameters():
            p.data.fill_(1.0 if p.ndim == 4 else 0.0)
        for bn in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.data.fill_(1.0)
        widths[type(block)] = int((block(impulse, like)[0, 0, 16] > 0).sum())
    # Bilinear from a coarse support of n pixels: 4 (n + 1) - 1 fine ones.
    assert widths == {LightUp: 4 * (5 + 1) - 1, UpProjection: 4 * (1 + 1) - 1 + 4 + 2}


def test_corners_stay_corners_when_a_map_is_resized():
    block = LightUp(1, 1).eval()
    block.conv.weight.data.zero_()
    block.conv.weight.data[0, 0, 2, 2] = 1
    x = torch.rand(1, 1, 4, 5)
    y = block(x, torch.zeros(1, 1, 11, 13)).detach() * (1 + block.bn.eps) ** 0.5
    assert torch.allclose(y[..., ::10, ::12], x[..., ::3, ::4], atol=1e-6)


def test_gate_scales_each_channel_by_one_number_between_zero_and_one():
    torch.manual_seed(0)
    x = torch.rand(2, 32, 5, 7) + 0.1
    scale = (Gate(32)(x) / x).flatten(2)
    assert torch.allclose(scale, scale[..., :1].expand_as(scale), atol=1e-5)
    assert (scale > 0).all() and (scale < 1).all()


def test_published_weights_of_the_encoder_load_by_key_and_others_are_refused():
    backbone = make_backbone("resnet18")
    weights = {k: torch.rand_like(v.float()) for k, v in backbone.state_dict().items()}
    load_imagenet(backbone, {**weights, "fc.weight": torch.zeros(1000, 512)})
    assert torch.equal(backbone.conv1.weight, weights["conv1.weight"])
    with pytest.raises(ValueError, match=r"the first is 'conv1\.weight'"):
        load_imagenet(backbone, {"features.0.weight": torch.zeros(1)})


def test_densenet_weights_under_their_old_names_load():
    backbone = on_meta(lambda: make_backbone("densenet161"))
    renamed = {"norm1": "norm.1", "norm2": "norm.2", "conv1": "conv.1", "conv2": "conv.2"}
    old = {}
    for key, value in backbone.state_dict().items():
        if "denselayer" in key:
            for new, name in renamed.items():
                key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert any("norm.1." in key for key in old)
    load_imagenet(backbone, old)


def test_public_mobilenet_weights_fit(shared_data):
    files = sorted((shared_data / "weights/mobilenetv2_imagenet").glob("*.pt*"))
    weights = torch.load(files[0], map_location="cpu", weights_only=True)
    backbone = make_backbone("mobilenet_v2")
    load_imagenet(backbone, weights)
    stem = F.conv2d(torch.ones(1, 3, 8, 8), weights["features.0.0.weight"], None, 2, 1)
    assert torch.equal(backbone.features[0][0](torch.ones(1, 3, 8, 8)), stem)


def test_every_backbone_is_used_by_a_network():
    assert {name.split("_", 1)[1] for name in NETWORKS} == set(BACKBONES)
