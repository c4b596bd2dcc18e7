"""The lifelong network: published counts, sizes, distances, heads that stay (METHODS 4)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mde_ros.checkpoint import Checkpoint, CheckpointError, load, read_tensors, save, write_tensors
from mde_ros.config import PipelineSettings
from mde_ros.export import export
from mde_ros.frame import Camera, Frame
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.networks.lifelong import HEIRS
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import load_runtime
from mde_ros.training.memory import whitening_of

LIGHT = "lifelong_mobilenet_v2"


def domains(name, number):
    torch.manual_seed(1)
    size = (1, 1) if name == LIGHT else (4, 5)
    return make_network(name, mean_sizes=(size,) * number).eval()


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_domain_costs_the_published_number_of_parameters(number):
    with torch.device("meta"):
        network = domains("lifelong_resnet34", number)
        heads = [parameters(domains(LIGHT, n)) for n in (number, number + 1)]
    assert parameters(network) == 22_023_106 + 208_258 * (number - 1)
    assert heads[1] - heads[0] < 12_000  # a robot can have many


@pytest.mark.parametrize(("name", "factor"), [("lifelong_resnet34", 2), (LIGHT, 1)])
@pytest.mark.parametrize("size", [(228, 304), (97, 131), (35, 34)])
def test_fused_map_is_half_the_input_or_a_quarter_in_the_fast_one_at_odd_sizes_too(
    name, factor, size
):
    """In whole pixels of the stride-4 map: 2⌈H/4⌉ and ⌈H/4⌉."""
    with torch.device("meta"):
        network = domains(name, 2)
        x = torch.empty(1, 3, *size)
        fused, (depth, s, distances) = network.features(x), network(x)
    assert tuple(fused.shape) == (1, 64, *(math.ceil(side / 4) * factor for side in size))
    assert depth.shape == s.shape == (1, 2, *(math.ceil(side / 4) * 2 for side in size))
    assert distances.shape == (1, 2)


def test_published_mean_has_the_size_of_its_fused_map():
    """METHODS 4: 64x114x152 for a 304x228 image."""
    with torch.device("meta"):
        network = make_network("lifelong_resnet34")
        assert network.mean(0).shape == network.features(torch.empty(1, 3, 228, 304)).shape[1:]


def test_nearest_mean_is_that_of_the_cluster_whatever_its_spatial_size():
    """Two planted clusters of smooth maps, means of other sizes than the image's and each other."""
    network = domains("lifelong_resnet34", 2)
    generator = torch.Generator().manual_seed(3)
    centres = [torch.rand(64, 6, 8, generator=generator) for _ in range(2)]

    def at(centre, height, width):
        return F.interpolate(centre[None], (height, width), mode="bilinear", align_corners=True)

    network.set_mean(0, at(centres[0], 57, 76)[0])
    network.set_mean(1, at(centres[1], 40, 120)[0])
    for domain, centre in enumerate(centres):
        for size in ((57, 76), (33, 91), (40, 120)):
            noise = 0.2 * torch.randn(5, 64, *size, generator=generator)
            distances = network.distances(at(centre, *size) + noise)
            assert (distances.argmin(1) == domain).all()
            assert distances[:, domain].tolist() == pytest.approx([0.04] * 5, rel=0.1)


def test_distance_is_the_mean_square_over_channels_rows_and_columns():
    network = domains("lifelong_resnet34", 2)
    network.set_mean(1, torch.full((64, 1, 1), 2.0))
    x = torch.zeros(2, 64, 3, 4)
    x[1] = 0.5
    assert network.distances(network.description(x)).tolist() == [[0.0, 4.0], [0.25, 2.25]]


def test_fast_network_describes_a_place_by_mean_and_deviation_of_its_channels():
    x = torch.randn(2, 64, 9, 7, generator=torch.Generator().manual_seed(0)) + 1
    seen = domains(LIGHT, 1).description(x)
    expected = torch.cat([x.mean((2, 3)), x.std((2, 3), unbiased=False)], 1)
    torch.testing.assert_close(seen[..., 0, 0], expected)


def test_fast_network_measures_in_units_of_what_varies_within_the_domains():
    """Two clusters, one channel apart, among what varies ten times as much in another."""
    network = domains(LIGHT, 2)
    generator = torch.Generator().manual_seed(0)
    seen = 0.02 * torch.randn(2, 200, 128, 1, 1, generator=generator)
    seen[:, :, 1] += 3 * torch.randn(2, 200, 1, 1, generator=generator)
    seen[1, :, 0] += 0.3
    network.whitening.copy_(whitening_of([each.flatten(1) for each in seen]))
    for domain, each in enumerate(seen):
        network.set_mean(domain, each.mean(0))
    for domain, each in enumerate(seen):
        distances = network.distances(each)
        assert (distances.argmin(1) == domain).float().mean() > 0.98
        plain = torch.stack([(each - network.mean(i)).square().mean((1, 2, 3)) for i in (0, 1)], 1)
        assert (plain.argmin(1) == domain).float().mean() < 0.8
    assert network.distances(seen[0])[:, 0].mean() < 1.5  # of a domain's own frames: about one


def test_new_head_begins_as_the_one_it_is_like_and_the_old_ones_answer_as_before(planted):
    network = planted(LIGHT)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    before = network(image)
    network.grow(0, torch.ones(128, 1, 1))
    depth, s, distances = network(image)
    for old, new in zip(before, (depth, s, distances)):
        assert torch.equal(new[:, :1], old)
    assert torch.equal(depth[:, 1], depth[:, 0]) and torch.equal(s[:, 1], s[:, 0])
    network.heads[1].depth.weight.data.mul_(2)
    assert torch.equal(network(image)[0][:, 0], before[0][:, 0])


@pytest.mark.parametrize("name", HEIRS)
def test_student_and_its_heir_give_the_same_depth_bit_for_bit(planted, name):
    student, heir = planted(name), domains(HEIRS[name], 1)
    heir.inherit(student)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heir(image)[0], student(image))


def test_student_is_believed_where_every_mean_is_farther_than_its_distance(planted):
    heir = domains(LIGHT, 1)
    heir.inherit(planted("fast_mobilenet_v2"))
    heir.grow(0, torch.full((128, 1, 1), 3.0))
    heir.elsewhere[0] = 0.5
    x = torch.stack([torch.full((128, 1, 1), level) for level in (2.9, 2.4, 2.2, 9.0)])
    assert heir.distances(x).argmin(1).tolist() == [1, 1, 0, 0]
    assert heir.distances(x)[:, 0].tolist() == [0.5] * 4
    heir.set_mean(0, torch.zeros(128, 1, 1))
    assert heir.distances(x)[:, 0].tolist() == pytest.approx([2.9**2, 2.4**2, 2.2**2, 81.0])


@pytest.mark.parametrize("half", [False, True])
def test_checkpoint_restores_heads_and_means_of_every_size(tmp_path, half):
    network, path = domains("lifelong_resnet34", 1), tmp_path / "model.safetensors"
    network.grow(0, torch.linspace(0, 1, 64 * 5 * 9).view(64, 5, 9))
    save(path, Checkpoint("lifelong_resnet34", network, {"domains": ["a", "b"]}), half)
    again = load(path).network
    assert again.options == {"mean_sizes": [[4, 5], [5, 9]]}
    for name, value in network.state_dict().items():
        kept = again.state_dict()[name]
        assert torch.equal(kept, value.half().to(value.dtype) if half else value)


@pytest.mark.parametrize("options", [{"mean_sizes": 3}, {"sizes": []}, {"mean_sizes": [[4]]}, []])
def test_checkpoint_whose_options_make_no_network_is_refused(tmp_path, options):
    path = tmp_path / "model.safetensors"
    save(path, Checkpoint(LIGHT, domains(LIGHT, 1)))
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | {"options": options})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        load(path)


@pytest.fixture(scope="module")
def exported(planted, tmp_path_factory):
    """(checkpoint, ONNX) of a light one with three domains; their means are the fused maps of a
    dark, a grey and a bright image."""
    path = tmp_path_factory.mktemp("lifelong") / "model.safetensors"
    network = planted(LIGHT)
    with torch.inference_mode():
        images = (torch.full((1, 64, 96, 3), level) for level in (10, 115, 235))
        means = [network.description(network.features(normalised_pixels(x)))[0] for x in images]
    network.set_mean(0, means[0])
    for i, mean in enumerate(means[1:]):
        network.grow(0, mean)
        network.heads[-1].depth.bias.data.add_(0.5 * (i + 1))
    spec = {"focal_px": 250.0, "pixels": 96 * 64, "domains": ["dark", "grey", "bright"]}
    save(path, Checkpoint(LIGHT, network, spec))
    export(path, path.with_suffix(".onnx"))
    return path, path.with_suffix(".onnx")


@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_onnx_chooses_the_domain_that_torch_does_and_gives_the_same_maps(exported, size):
    a, b = (load_runtime(str(path), device="cpu", threads=1) for path in exported)
    assert a.spec.domains == b.spec.domains == ("dark", "grey", "bright")
    for level in (10, 115, 235):
        image = np.full((*size, 3), level, np.uint8)
        one, two = a(image, 300.0), b(image, 300.0)
        assert set(one) == set(two)
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-3), name
        domain = int(one["distances"].argmin())
        assert two["domain"] == one["domain"] == domain and two["domain"].dtype == np.int64
        assert np.array_equal(two["depth"], two["depth_each"][domain])
        assert np.array_equal(two["uncertainty"], two["uncertainty_each"][domain])
    ratios = two["depth_each"][1:] / two["depth_each"][0]
    assert ratios == pytest.approx(np.exp([0.5, 1.0])[:, None, None] * np.ones_like(ratios), 1e-3)


@pytest.mark.parametrize("number", [1, 3])
def test_openvino_gives_the_same_outputs_by_the_same_names(exported, tmp_path, number):
    pytest.importorskip("openvino", reason="openvino is not installed")
    path = exported[1]
    if number == 1:
        path = tmp_path / "one.onnx"
        spec = {"focal_px": 250.0, "pixels": 96 * 64, "domains": ["only"]}
        save(path.with_suffix(".safetensors"), Checkpoint(LIGHT, domains(LIGHT, 1), spec))
        export(path.with_suffix(".safetensors"), path)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    one, two = (
        load_runtime(str(path), r, "cpu")(image, 250.0) for r in ("onnxruntime", "openvino")
    )
    assert set(one) == set(two) and one["distances"].shape == two["distances"].shape == (number,)
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-3), name


def test_linked_onnx_of_several_domains_computes_the_same(exported, tmp_path):
    loaded = load(exported[0])
    save(tmp_path / "m.safetensors", loaded, half=True)
    assert export(tmp_path / "m.safetensors", tmp_path / "m.onnx", linked=True) < 1e-3
    assert (tmp_path / "m.onnx").stat().st_size < 0.1 * exported[1].stat().st_size


def test_pipeline_names_the_domain_of_each_frame_and_keeps_to_the_one_it_is_told(exported):
    camera = Camera(96, 64, np.array([[90, 0, 47.5], [0, 90, 31.5], [0, 0, 1.0]]))
    frames = [Frame(np.full((64, 96, 3), v, np.uint8), camera) for v in (10, 115, 235)]
    chosen = [DepthPipeline(PipelineSettings(model=str(exported[1])))(f) for f in frames]
    assert [p.domain for p in chosen] == ["dark", "grey", "bright"]
    assert all(p.uncertainty.shape == (64, 96) and p.domain_distance < 0.1 for p in chosen)
    told = DepthPipeline(PipelineSettings(model=str(exported[1]), domain="grey"))
    assert [told(f).domain for f in frames] == ["grey"] * 3
