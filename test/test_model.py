"""DepthModel: what a network sees, and metres that survive a change of camera."""

import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.model import IMAGENET_MEAN, IMAGENET_STD, DepthModel, normalised_pixels

FC = 100.0  # canonical focal length of the stub below, pixels
SIDE_M = 0.4  # of the square it knows


class Ruler(nn.Module):
    """Knows the side of the white square and answers with its distance at focal length FC."""

    def forward(self, x):
        white = (1 - IMAGENET_MEAN[0]) / IMAGENET_STD[0]
        side_px = (x[:, :1] > white - 0.01).float().sum((2, 3), keepdim=True).sqrt()
        return (FC * SIDE_M / side_px).expand(-1, 1, x.shape[2] // 2, x.shape[3] // 2)


def square(focal_px, distance_m, height=96, width=128):
    """Picture of a white square of SIDE_M, facing a camera of this focal length."""
    image = np.zeros((height, width, 3), np.uint8)
    side = round(focal_px * SIDE_M / distance_m)
    image[5 : 5 + side, 9 : 9 + side] = 255
    return image


def ask(model, image, focal_px):
    with torch.inference_mode():
        return model(torch.from_numpy(image)[None], torch.tensor([focal_px]))["depth"]


@pytest.mark.parametrize("focal_px", [50.0, 100.0, 200.0])
@pytest.mark.parametrize("distance_m", [1.0, 2.0])
def test_any_focal_length_gives_the_same_metres(focal_px, distance_m):
    depth = ask(DepthModel(Ruler(), FC), square(focal_px, distance_m), focal_px)
    assert depth.shape == (1, 1, 48, 64)
    assert torch.allclose(depth, torch.tensor(distance_m))


def test_without_a_canonical_focal_length_the_network_is_taken_at_its_word():
    depth = ask(DepthModel(Ruler()), square(50.0, 2.0), 50.0)
    assert torch.allclose(depth, torch.tensor(4.0))


def test_each_image_of_a_batch_has_its_own_focal_length():
    images = torch.from_numpy(np.stack([square(50.0, 1.0), square(100.0, 2.0)]))
    depth = DepthModel(Ruler(), FC)(images, torch.tensor([50.0, 100.0]))["depth"]
    assert depth[:, 0, 0, 0].tolist() == pytest.approx([1.0, 2.0])


def test_network_sees_imagenet_statistics_in_rgb_order():
    seen = []
    network = nn.Identity()
    network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    ask(DepthModel(network), image, 1.0)
    expected = (image / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert seen[0][0].permute(1, 2, 0).numpy() == pytest.approx(expected, abs=1e-5)


def test_a_training_sees_bit_for_bit_what_the_model_does():
    image = torch.randint(0, 256, (2, 4, 6, 3), generator=torch.manual_seed(0)).byte()
    expected = DepthModel(nn.Identity()).normalise(image)
    assert torch.equal(normalised_pixels(image), expected)
    assert torch.equal(normalised_pixels(image.float()), expected)


def test_images_of_a_training_are_normalised_where_they_are():
    """`meta` stands for a GPU: what is on another device cannot be mixed with it either."""
    image = torch.zeros(1, 4, 6, 3, dtype=torch.uint8, device="meta")
    assert normalised_pixels(image).device.type == "meta"


def test_sparse_depth_reaches_the_network_at_the_canonical_scale_and_comes_back_in_metres():
    class Echo(nn.Module):
        def forward(self, x, sparse):
            assert torch.allclose(sparse, torch.tensor(6.0))
            return sparse

    sparse_m = torch.full((1, 1, 4, 6), 3.0)
    image = torch.zeros(1, 4, 6, 3, dtype=torch.uint8)
    depth = DepthModel(Echo(), FC)(image, torch.tensor([FC / 2]), sparse_m)["depth"]
    assert torch.equal(depth, sparse_m)


def test_half_precision_network_gets_all_inputs_in_half_precision_and_gives_fp32_metres():
    class Sum(nn.Module):
        def forward(self, x, sparse):
            assert x.dtype == sparse.dtype == torch.float16
            return x[:, :1] * 0 + sparse

    image = torch.zeros(1, 4, 6, 3, dtype=torch.uint8)
    sparse_m = torch.full((1, 1, 4, 6), 3.0)
    depth = DepthModel(Sum(), FC).half()(image, torch.tensor([FC / 2]), sparse_m)["depth"]
    assert torch.equal(depth, sparse_m)


def test_every_image_gets_depth_and_uncertainty_of_its_nearest_domain():
    """Planted: domain d says (d + 1) · (image + 1) canonical metres, error e = that / 10."""
    metres = torch.tensor([1.0, 2.0])[:, None] * torch.tensor([1.0, 2.0, 3.0])
    maps = metres[..., None, None].expand(2, 3, 4, 6)
    distances = torch.tensor([[0.3, 0.1, 0.2], [5.0, 9.0, 8.0]])

    class Domains(nn.Module):
        def forward(self, x):
            return maps, torch.log((maps / 10) ** 2 / 2), distances

    images = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    out = DepthModel(Domains(), FC)(images, torch.tensor([FC, 3 * FC]))
    assert out["domain"].tolist() == [1, 0] and torch.equal(out["distances"], distances)
    for i, expected in enumerate((2.0, 6.0)):
        assert torch.allclose(out["depth"][i], torch.full((1, 4, 6), expected))
        assert torch.allclose(out["uncertainty"][i], torch.full((1, 4, 6), expected / 10))
    assert torch.allclose(out["depth_each"][1], 3 * maps[1])
    assert out["uncertainty_each"].shape == (2, 3, 4, 6)


def test_weights_of_a_network_are_the_models_only_state():
    assert list(DepthModel(nn.Conv2d(3, 1, 1)).state_dict()) == ["network.weight", "network.bias"]
