"""Networks against the published parameter counts and shapes (METHODS 1, 5, 7b, 11)."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mde_ros.networks import MASKS, NETWORKS, demands, make_network
from mde_ros.networks.backbones import BACKBONES, load_imagenet, make_backbone
from mde_ros.networks.blocks import Gate, LightUp, UnpoolProjection, UpProjection
from mde_ros.networks.describe import describe_all, multiply_adds

COUNTS = {
    "mff_resnet50": 67_569_473,
    "mff_resnet18": 14_883_825,
    "mff_senet154": 157_101_425,
    "light_resnet34": 21_918_977,
    "light_mobilenet_v2": 1_673_905,
    "fast_mobilenet_v2": 1_481_460,
    "lifelong_resnet34": 22_023_106,
    "saliency_drn22": 25_259_761,
    "saliency_drn38": 35_367_921,
    "saliency_drn54": 44_675_185,
}
PYRAMIDS = {  # channels and the size of each map of a 304x228 image, METHODS 1 and 5
    "resnet50": [(256, 57, 76), (512, 29, 38), (1024, 15, 19), (2048, 8, 10)],
    "senet154": [(256, 57, 76), (512, 29, 38), (1024, 15, 19), (2048, 8, 10)],
    "densenet161": [(192, 57, 76), (384, 28, 38), (1056, 14, 19), (2208, 7, 9)],
    "mobilenet_v2": [(24, 57, 76), (32, 29, 38), (96, 15, 19), (160, 8, 10)],
}


S2D = ("s2d_resnet18", "s2d_resnet34")


def on_meta(make):
    with torch.device("meta"):
        return make().eval()


COMPLETION = [n for n in NETWORKS if demands(on_meta(NETWORKS[n].make)).get("takes_points")]
VIDEO = [n for n in NETWORKS if not demands(on_meta(NETWORKS[n].make)).get("metric", True)]
MONO = [n for n in NETWORKS if n not in (*COMPLETION, *MASKS, *VIDEO)]


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
    image = torch.empty(1, 3, 228, 304, device="meta")
    maps = encoder(image)
    assert encoder.stem(image).shape[1:] == (encoder.stem_channels, 114, 152)
    assert [tuple(m.shape[1:]) for m in maps] == PYRAMIDS[name]
    assert tuple(m.shape[1] for m in maps) == encoder.channels


@pytest.mark.parametrize("name", MONO)
def test_output_is_half_the_input_at_any_size(name):
    """Odd sizes go to the next whole pixel at a quarter, as the strides do; SENet's rounds down.

    What SARPN puts out has the size of a map at a half.
    """
    network = on_meta(lambda: make_network(name))
    for height, width in ((228, 304), (64, 96), (97, 131), (101, 66), (35, 34)):
        out = network(torch.empty(2, 3, height, width, device="meta"))
        out = out[0] if isinstance(out, tuple) else out
        quarters = {out.shape[2] / 2 - height / 4, out.shape[3] / 2 - width / 4}
        assert out.shape[:2] == (2, 1) and max(map(abs, quarters)) < 1, (height, width)
        if name.startswith("sarpn"):
            assert tuple(out.shape[2:]) == (-(-height // 2), -(-width // 2))
        elif name != "mff_senet154":
            assert tuple(out.shape[2:]) == (-(-height // 4) * 2, -(-width // 4) * 2)


def test_fast_student_gives_positive_depth_whatever_its_weights():
    torch.manual_seed(0)
    network = make_network("fast_mobilenet_v2").eval()
    for p in network.refine.parameters():
        p.data.mul_(1000)
    depth = network(torch.randn(1, 3, 64, 64))
    assert depth.isfinite().all() and (depth > 0).all()


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"mff_resnet50, .*s2d_resnet18, .*got 'nn'"):
        make_network("nn")
    with pytest.raises(ValueError, match=r"resnet18, .*mobilenet_v2, got 'nn'"):
        make_backbone("nn")


def test_multiply_adds_of_a_known_stack_are_counted_by_hand():
    """3x3 3→8 at stride 2, grouped 3x3 8→8, 1x1 8→4 on 10x6, so 5x3 positions each."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1)
    )
    assert multiply_adds(network, 10, 6) == 15 * (9 * 3 * 8 + 9 * 8 + 8 * 4)


def test_multiply_adds_of_a_transposed_convolution_and_a_matrix_product_are_counted_by_hand():
    class Products(nn.Module):
        takes_points = True

        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 4, 5, 2, 2, 1)

        def forward(self, x, sparse):
            up = self.up(x).flatten(2)  # (1, 4, 240) from 10x6
            return up @ up.transpose(1, 2) + sparse.mean()

    assert multiply_adds(Products(), 10, 6) == 60 * 25 * 3 * 4 + 4 * 240 * 4


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
    assert {name.split("_", 1)[1] for name in MONO} == set(BACKBONES)


def conv(kernel, cin, cout):
    """Weights of a convolution without bias and its batch norm."""
    return kernel**2 * cin * cout + 2 * cout


def resnet_stages(blocks):
    """Weights of the four stages of a ResNet of two 3x3 convolutions a block."""
    total, cin = 0, 64
    for width, count in zip((64, 128, 256, 512), blocks):
        total += conv(3, cin, width) + (2 * count - 1) * conv(3, width, width)
        total += conv(1, cin, width) if cin != width else 0
        cin = width
    return total


def bottleneck_stages(blocks):
    """Weights of the four stages of a ResNet of 1x1, 3x3, 1x1 convolutions a block."""
    total, cin = 0, 64
    for width, count in zip((64, 128, 256, 512), blocks):
        for _ in range(count):
            total += conv(1, cin, width) + conv(3, width, width) + conv(1, width, 4 * width)
            total += conv(1, cin, 4 * width) if cin != 4 * width else 0
            cin = 4 * width
    return total


@pytest.mark.parametrize(
    ("name", "stages", "c4", "exact", "millions"),
    [
        ("fcrn_resnet50", bottleneck_stages((3, 4, 6, 3)), 2048, 63_563_008, 63.56),
        ("fcrn_resnet18", resnet_stages((2, 2, 2, 2)), 512, 13_681_520, 13.68),
    ],
)
def test_fcrn_has_the_published_millions_by_its_layer_list(
    described, name, stages, c4, exact, millions
):
    by_hand = conv(7, 3, 64) + stages + conv(1, c4, c4 // 2) + 9 * (c4 // 32)
    for cin in (c4 // 2, c4 // 4, c4 // 8, c4 // 16):
        by_hand += 2 * conv(5, cin, cin // 2) + conv(3, cin // 2, cin // 2)
    assert described[name]["parameters"] == by_hand == exact
    assert round(by_hand / 1e6, 2) == millions


@torch.no_grad()
def test_fcrn_is_sparse_to_dense_without_points_at_half_the_size(planted):
    """Two publications, one network: the same weights give the same map before the last resize."""
    fcrn, s2d = planted("fcrn_resnet18"), plant(make_network("s2d_resnet18"))
    s2d.load_state_dict(fcrn.state_dict(), strict=False)
    s2d.stem_depth.weight.zero_()
    image = torch.randn(1, 3, 64, 96)  # whole cells: 16 times the coarsest map is half the image
    half, full = fcrn(image), s2d(image, torch.rand(1, 1, 64, 96))
    assert half.shape[2:] == (32, 48)
    assert same(F.interpolate(half, (64, 96), mode="bilinear", align_corners=True), full)


def test_sparse_to_dense_has_the_parameters_of_its_papers_layer_lists(described):
    ups = [(256, 128), (128, 64), (64, 32), (32, 16)]
    early = conv(7, 4, 64) + resnet_stages((2, 2, 2, 2)) + conv(1, 512, 256)
    early += sum(2 * conv(5, i, o) + conv(3, o, o) for i, o in ups) + 9 * 16
    assert described["s2d_resnet18"]["parameters"] == early
    # METHODS 6 gives 13.68 M for the same layers on an image alone.
    assert round((early - 49 * 64) / 1e6, 2) == 13.68

    late = conv(3, 1, 16) + conv(3, 3, 48) + resnet_stages((3, 4, 6, 3)) + conv(3, 512, 512)
    ups = [(512, 256), (256 + 512, 128), (128 + 256, 64), (64 + 128, 64), (64 + 64, 64)]
    late += sum(conv(3, i, o) for i, o in ups) + (64 + 64) * 1 + 1
    assert described["s2d_resnet34"]["parameters"] == late


def plant(module):
    """Statistics and scales of its own for every batch norm, so that each matters."""
    torch.manual_seed(3)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.uniform_(-0.1, 0.1)
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.05, 0.3)
    return module.eval()


def same(a, b):
    return (a - b).abs().max() < 1e-5 * b.abs().max()


def test_unpooling_as_a_transposed_convolution_equals_zeros_between_the_pixels():
    block, x = plant(UnpoolProjection(6, 4)), torch.randn(2, 6, 5, 7)
    zeros = torch.zeros(2, 6, 10, 14)
    zeros[..., ::2, ::2] = x

    def conv5(module):
        return F.conv2d(zeros, module.weight.transpose(0, 1).flip(2, 3), padding=2)

    main = block.bn2(block.conv2(F.relu(block.bn1(conv5(block.conv1)))))
    expected = F.relu(main + block.bn_shortcut(conv5(block.shortcut)))
    assert same(block(x), expected)


@torch.no_grad()
def test_sparse_to_dense_of_2018_is_one_network_on_the_concatenated_image_and_depth():
    network = plant(make_network("s2d_resnet18"))
    image, sparse = torch.randn(1, 3, 65, 90), torch.rand(1, 1, 65, 90) * 5
    encoder = network.encoder
    four = torch.cat([encoder.conv1.weight, network.stem_depth.weight], 1)
    x = F.conv2d(torch.cat([image, sparse], 1), four, stride=2, padding=3)
    x = F.max_pool2d(F.relu(encoder.bn1(x)), 3, 2, 1)
    x = encoder.layer4(encoder.layer3(encoder.layer2(encoder.layer1(x))))
    assert x.shape[2:] == (3, 3)
    x = network.head(network.up(network.reduce(x)))
    assert x.shape[2:] == (48, 48)
    expected = F.interpolate(x, (65, 90), mode="bilinear", align_corners=True)
    assert same(network(image, sparse), expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 48), (37, 41)])
def test_sparse_to_dense_of_2019_doubles_each_map_to_the_size_of_the_next_finer(size):
    """Transposed convolutions whose padding is chosen for the size, which no fixed layer can."""
    network = plant(make_network("s2d_resnet34"))
    image, sparse = torch.randn(1, 3, *size), torch.rand(1, 1, *size) * 5
    conv1 = torch.cat([network.stem_depth(sparse), network.stem_image(image)], 1)
    conv2 = network.encoder["layer1"](conv1)
    conv3 = network.encoder["layer2"](conv2)
    conv4 = network.encoder["layer3"](conv3)
    conv5 = network.encoder["layer4"](conv4)
    x = network.bottom(conv5)
    for up, finer in zip(network.up, (conv5, conv4, conv3, conv2, conv1)):
        step, norm, leaky = up
        stride = 1 if finer is conv1 else 2
        extra = [f - ((n - 1) * stride + 1) for f, n in zip(finer.shape[2:], x.shape[2:])]
        x = F.conv_transpose2d(x, step.weight, None, stride, 1, extra)
        x = torch.cat([leaky(norm(x)), finer], 1)
    expected = 100 * network.head(x)
    assert expected.min() < 0.9 < expected.max()
    assert same(network(image, sparse), expected.clamp(min=0.9))


def test_only_an_evaluation_puts_the_depth_of_2019_above_the_range_of_its_laser():
    network = make_network("s2d_resnet34")
    network.head.weight.data.zero_()
    network.head.bias.data.fill_(0.002)
    inputs = torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    assert torch.allclose(network.train()(*inputs), torch.tensor(0.2))
    assert torch.allclose(network.eval()(*inputs), torch.tensor(0.9))


@pytest.mark.parametrize("name", S2D)
def test_sparse_to_dense_gives_depth_and_its_error_at_any_size(name):
    depth_only, uncertain = (
        on_meta(lambda n=n: make_network(n)) for n in (name, f"{name}_uncertain")
    )
    for size in ((228, 304), (352, 1216), (97, 131), (35, 34)):
        inputs = (torch.empty(2, c, *size, device="meta") for c in (3, 1))
        inputs = tuple(inputs)
        assert depth_only(*inputs).shape == (2, 1, *size)
        assert [o.shape for o in uncertain(*inputs)] == [(2, 1, *size)] * 2


def test_error_of_a_completion_network_is_its_second_channel_and_not_scaled_with_depth():
    network = make_network("s2d_resnet34_uncertain").eval()
    network.head.weight.data.zero_()
    network.head.bias.data = torch.tensor([0.05, -3.0])
    depth, s = network(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))
    assert torch.allclose(depth, torch.tensor(5.0)) and torch.allclose(s, torch.tensor(-3.0))


def lines(*rows):
    """Sparse depth of 64x96 pixels with 3 m along these rows."""
    sparse = torch.zeros(1, 1, 64, 96)
    sparse[..., list(rows), :] = 3
    return sparse


@torch.no_grad()
@pytest.mark.parametrize("name", COMPLETION)
def test_any_number_of_lines_is_taken_and_each_changes_the_answer(name):
    network, image = plant(make_network(name)), torch.randn(1, 3, 64, 96)
    answers = []
    for sparse in (lines(), lines(40), lines(20, 40), lines(*range(64))):
        output = network(image, sparse)
        answers.append(output if isinstance(output, torch.Tensor) else torch.cat(output))
        assert answers[-1].isfinite().all()
    assert not any(same(a, b) for a, b in pairwise(answers))


@torch.no_grad()
@pytest.mark.parametrize("name", ["completion_mobilenet_v2", "s2d_resnet18"])
def test_completion_in_half_precision_as_on_a_gpu_stays_within_two_percent(planted, name):
    network, image = planted(name), torch.randn(1, 3, 64, 96)
    sparse = lines(40)
    exact = network(image, sparse)
    rough = network.half()(image.half(), sparse.half())
    if isinstance(exact, torch.Tensor):
        exact, rough = (exact,), (rough,)
    for a, b in zip(rough, exact):
        assert (a.float() - b).abs().max() < 0.02 * b.abs().max()


@pytest.mark.parametrize("name", S2D)
def test_imagenet_weights_load_into_the_image_part_of_a_completion_encoder(name):
    network = make_network(name)
    imagenet = make_backbone(name.split("_")[1]).state_dict()
    weights = {k: torch.rand_like(v.float()) for k, v in imagenet.items()}
    load_imagenet(network.encoder, {**weights, "fc.weight": torch.zeros(1000, 512)})
    own = network.encoder.state_dict()
    assert {k for k in own if k.startswith("layer")} == {k for k in weights if "layer" in k}
    assert all(torch.equal(v, weights[k]) for k, v in own.items() if v.is_floating_point())
