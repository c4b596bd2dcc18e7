"""The residual pyramid against its layer list, its construction and its supervision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mde_ros.networks import make_network
from mde_ros.training.batches import Source
from mde_ros.training.loop import LoopSettings, make_fabric
from mde_ros.training.supervised import SupervisedSettings, supervised_loss


def conv(kernel, cin, cout):
    """Weights of a convolution without bias and its batch norm."""
    return kernel**2 * cin * cout + 2 * cout


def pyramid_weights(channels, part):
    """Of all but the encoder, by the authors' lists of layers."""
    top = channels[-1]
    total = conv(1, top, top // 2)
    for scale in range(5):
        p, width, half = part >> scale, top >> (scale + 1), top >> (scale + 2)
        total += sum(2 * conv(5, c, p) + conv(3, p, p) for c in channels) + conv(3, 5 * p, width)
        total += conv(3, width if scale else top, width) + 9 * width
        total += conv(3, 1, half) + conv(3, half, half) + 9 * half + 1
    return total


@pytest.mark.parametrize(
    ("name", "encoder", "channels", "part", "exact", "millions"),
    [
        # The encoders' own counts: torchvision's and Cadene's less their classifiers.
        (
            "sarpn_senet154",
            115_088_984 - 2048 * 1000 - 1000,
            (128, 256, 512, 1024, 2048),
            256,
            258_400_149,
            258.40,
        ),
        (
            "sarpn_resnet34",
            21_797_672 - 512 * 1000 - 1000,
            (64, 64, 128, 256, 512),
            128,
            38_651_349,
            38.65,
        ),
    ],
)
def test_parameters_are_the_millions_of_the_data_free_paper_by_the_layer_list(
    name, encoder, channels, part, exact, millions
):
    with torch.device("meta"):
        network = make_network(name)
    assert sum(p.numel() for p in network.parameters()) == exact
    assert encoder + pyramid_weights(channels, part) == exact
    assert round(exact / 1e6, 2) == millions


@pytest.fixture(scope="module")
def network(planted):
    return planted("sarpn_resnet34")


def named(network):
    """The layers as a function of their names, in the form of the publication."""
    weights = network.state_dict()

    def normalised(x, conv, norm, padding):
        x = F.conv2d(x, weights[f"{conv}.weight"], padding=padding)
        w = {k: weights[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, *w.values())

    def predicted(x, name, bias=None):
        return F.conv2d(x, weights[f"{name}.weight"], bias and weights[bias], padding=1)

    return normalised, predicted


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_every_scale_is_the_coarser_depth_and_a_residual_of_all_maps_then_refined(network, size):
    normalised, predicted = named(network)
    torch.manual_seed(1)
    image = torch.randn(1, 3, *size)
    encoder = network.encoder
    c1 = F.relu(encoder.bn1(encoder.conv1(image)))
    maps = [c1, *encoder(image)]
    depth, scales = None, []
    for k in range(5):
        like = maps[4 - k].shape[2:]
        brought = []
        for i, source in enumerate(maps):
            at = f"fuse.{k}.bring.{i}"
            x = F.interpolate(source, like, mode="bilinear", align_corners=True)
            main = F.relu(normalised(x, f"{at}.conv1", f"{at}.bn1", 2))
            main = normalised(main, f"{at}.conv2", f"{at}.bn2", 1)
            brought.append(F.relu(main + normalised(x, f"{at}.shortcut", f"{at}.bn_shortcut", 2)))
        x = F.relu(normalised(torch.cat(brought, 1), f"fuse.{k}.fuse.0", f"fuse.{k}.fuse.1", 1))
        if depth is None:
            x = torch.cat([F.relu(normalised(maps[4], "reduce.0", "reduce.1", 0)), x], 1)
        x = F.relu(normalised(x, f"predict.{k}.0", f"predict.{k}.1", 1))
        x = predicted(x, f"predict.{k}.3")
        if depth is not None:
            x = x + F.interpolate(depth, like, mode="bilinear", align_corners=True)
        r = f"refine.{k}.detail"
        y = F.relu(normalised(x, f"{r}.0", f"{r}.1", 1))
        y = F.relu(normalised(y, f"{r}.3", f"{r}.4", 1))
        depth = x + predicted(y, f"{r}.6", f"{r}.6.bias")
        scales.append(depth)
    given = network(image, every_scale=True)
    assert [d.shape for d in given] == [d.shape for d in scales]
    for ours, expected in zip(given, scales):
        assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(network(image), given[-1])


class Scales(nn.Module):
    """Says a depth of its own at each of three scales, or the last alone."""

    every_scale = True

    def __init__(self, *depths_m):
        super().__init__()
        self.depths_m = nn.Parameter(torch.tensor(depths_m))

    def forward(self, x, every_scale=False):
        sizes = [(x.shape[2] // n, x.shape[3] // n) for n in (8, 4, 2)]
        says = [d.expand(len(x), 1, *size) for d, size in zip(self.depths_m, sizes)]
        return says if every_scale else says[-1]


def test_supervision_adds_up_the_loss_of_every_scale_also_under_fabric():
    settings = SupervisedSettings(
        sources=(Source("anywhere"),), gradient_weight=0.0, normal_weight=0.0
    )
    batch = {
        "image": torch.zeros(1, 32, 48, 3, dtype=torch.uint8),
        "truth": torch.full((1, 1, 32, 48), 2.0),
    }
    network = Scales(2.0, 2.5, 4.0)  # l_depth = ln(|error| + 0.5)
    expected = torch.tensor([0.5, 1.0, 2.5]).log().sum().item()
    assert supervised_loss(settings)(network, batch).item() == pytest.approx(expected)
    fabric = make_fabric(LoopSettings(device="cpu", precision="32-true"))
    wrapped = fabric.setup(network)
    loss = supervised_loss(settings)(wrapped, batch)
    assert loss.item() == pytest.approx(expected)
    fabric.backward(loss)  # d ln(e + 0.5)/de, nothing where the error is 0
    assert network.depths_m.grad.tolist() == pytest.approx([0, 1 / 1.0, 1 / 2.5])
