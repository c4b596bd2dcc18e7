"""ONNX files compute what torch does, at any size, or are not written."""

from itertools import pairwise

import onnx
import pytest
import torch
from torch import nn

from mde_ros import export as exporter
from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.export import ParityError, SplitHead, example, export, split_heads
from mde_ros.model import DepthModel
from mde_ros.runtime import ModelError, ModelSpec, OnnxRuntime, sha256_of

NAMES = ("fast_mobilenet_v2", "light_mobilenet_v2")


def onnx_and_torch(onnx_path, checkpoint, size, focal_px, seed):
    image = example(ModelSpec(size=size), seed)[0]
    model = DepthModel(load(checkpoint).network, 250.0).eval()
    with torch.inference_mode():
        expected = model(image, torch.tensor([focal_px]))["depth"][0, 0].numpy()
    return OnnxRuntime(onnx_path, threads=1)(image.numpy()[0], focal_px)["depth"], expected


@pytest.mark.parametrize("size", [(96, 64), (304, 228), (131, 97), (34, 67), (64, 96)])
@pytest.mark.parametrize("name", NAMES)
def test_onnx_equals_torch_at_every_size_from_one_file(students, name, size):
    checkpoint, path = students[name]
    got, expected = onnx_and_torch(path, checkpoint, size, 123.0, seed=sum(size))
    assert got.shape == expected.shape == (-(-size[1] // 4) * 2, -(-size[0] // 4) * 2)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(abs(expected).max()))
    assert expected.std() > 1e-3 * abs(expected).mean(), "a flat answer would prove nothing"


@pytest.fixture(scope="module", params=["s2d_resnet18", "completion_mobilenet_v2"])
def completion(planted, tmp_path_factory, request):
    """(checkpoint, ONNX) of a completion network with planted weights."""
    path = tmp_path_factory.mktemp("completion") / f"{request.param}.safetensors"
    network = planted(request.param)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_var /= 4  # a deep network would hardly notice its input
    save(path, Checkpoint(request.param, network, {"focal_px": 250.0}))
    export(path, path.with_suffix(".onnx"))
    return path, path.with_suffix(".onnx")


@pytest.mark.parametrize("size", [(96, 64), (160, 112)])
def test_completion_in_onnx_equals_torch_with_several_lines_with_one_and_with_none(
    completion, size
):
    checkpoint, path = completion
    loaded, runtime = load(checkpoint), OnnxRuntime(path, threads=1)
    assert runtime.spec.takes_points
    model = DepthModel(loaded.network, 250.0).eval()
    image = example(ModelSpec(size=size))[0]
    depths = []
    for rows in ((), (30,), (10, 30, 50)):
        sparse_m = torch.zeros(1, 1, size[1], size[0])
        sparse_m[..., rows, 5:] = 3.0
        with torch.inference_mode():
            expected = model(image, torch.tensor([200.0]), sparse_m)
        got = runtime(image.numpy()[0], 200.0, sparse_m.numpy()[0, 0])
        assert set(got) == set(expected) >= {"depth"}
        for name, value in expected.items():
            assert abs(got[name] - value[0, 0].numpy()).max() < 1e-4 * value.abs().max(), name
        depths.append(got["depth"])
    for one, other in pairwise(depths):
        assert abs(one - other).max() > 1e-2 * abs(one).max(), "the points must matter"


@pytest.mark.parametrize("case", ["with points", "without points"])
def test_completion_is_compared_with_points_and_without(ruler, tmp_path, monkeypatch, case):
    """A network that exports wrongly where there are points, or only where there are none."""
    honest = exporter._Outputs.forward

    def wrong(self, image, focal_px, sparse_m):
        depth, sigma = honest(self, image, focal_px, sparse_m)
        found = (sparse_m.amax((1, 2, 3)) > 0).float()
        return depth * (1 + 0.01 * (found if case == "with points" else 1 - found)), sigma

    monkeypatch.setattr(exporter._Outputs, "forward", wrong)
    refused(ruler[0], tmp_path / "out.onnx")


def test_exported_completion_takes_sparse_depth_of_the_images_size(ruler):
    graph = onnx.load(ruler[1]).graph
    dims = {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in graph.input
    }
    assert dims["image"] == [1, "height", "width", 3]
    assert dims["sparse_m"] == [1, 1, "height", "width"]
    assert [o.name for o in graph.output] == ["depth", "uncertainty"]


def test_linked_completion_computes_the_same_without_a_copy_of_its_weights(planted, tmp_path):
    checkpoint, path = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save(checkpoint, Checkpoint("s2d_resnet18", planted("s2d_resnet18")), half=True)
    assert export(checkpoint, path, linked=True) <= exporter.TOLERANCE
    assert path.stat().st_size < 0.1 * checkpoint.stat().st_size


def test_exported_file_describes_itself(students):
    runtime = OnnxRuntime(students[NAMES[0]][1])
    assert (runtime.spec.name, runtime.spec.focal_px) == (NAMES[0], 250.0)
    assert (runtime.spec.pixels, runtime.spec.foreign) == (96 * 64, False)


@pytest.mark.parametrize("bias", [True, False])
def test_split_head_equals_the_convolution_it_replaces(bias):
    torch.manual_seed(0)
    head, x = nn.Conv2d(64, 1, 5, padding=2, bias=bias), torch.randn(2, 64, 9, 11)
    assert torch.allclose(SplitHead(head)(x), head(x), atol=1e-5)


def test_heads_are_split_wherever_they_stand_and_nothing_else_is(planted):
    x = torch.rand(1, 3, 64, 64)
    network = planted("light_mobilenet_v2")
    expected = network(x)
    split = split_heads(network)
    assert torch.allclose(split(x), expected, atol=1e-4)
    kinds = [type(m) for m in split.modules()]
    assert kinds.count(SplitHead) == 1
    fast = planted("fast_mobilenet_v2")
    assert not any(isinstance(m, SplitHead) for m in split_heads(fast).modules())


@pytest.mark.parametrize("half", [False, True])
def test_linked_file_holds_no_weights_and_computes_the_same(planted, tmp_path, half):
    checkpoint, path = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    spec = {"name": "net", "focal_px": 250.0}
    save(checkpoint, Checkpoint(NAMES[1], planted(NAMES[1]), spec), half)
    assert export(checkpoint, path, linked=True) <= exporter.TOLERANCE
    assert path.stat().st_size < 0.1 * checkpoint.stat().st_size
    got, expected = onnx_and_torch(path, checkpoint, (131, 97), 250.0, 1)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(abs(expected).max()))
    assert OnnxRuntime(path).sha256 == sha256_of(checkpoint)
    network = planted(NAMES[1])
    network.refine[-1].bias.data += 1
    save(checkpoint, Checkpoint(NAMES[1], network, spec), half)
    with pytest.raises(ModelError, match=r"expected net\.safetensors .*export it again"):
        OnnxRuntime(path)


def test_linked_file_must_lie_beside_its_checkpoint(students, tmp_path):
    with pytest.raises(ModelError, match="must lie beside its checkpoint"):
        export(students[NAMES[0]][0], tmp_path / "out.onnx", linked=True)
    assert not list(tmp_path.iterdir())


def refused(source, target):
    """Export must fail, keep the file that was there and leave no other behind."""
    target.write_text("what was there")
    with pytest.raises(ParityError, match=r"differs from torch by .* it was not written"):
        export(source, target)
    assert target.read_text() == "what was there"
    assert set(target.parent.iterdir()) <= {source, target}


def test_export_that_differs_from_torch_is_refused(students, tmp_path, monkeypatch):
    """The split head is made to be wrong by one percent."""
    honest = SplitHead.forward
    monkeypatch.setattr(SplitHead, "forward", lambda self, x: honest(self, x) * 1.01)
    refused(students["light_mobilenet_v2"][0], tmp_path / "out.onnx")


def test_network_whose_answer_is_not_a_number_is_refused(planted, tmp_path):
    network = planted(NAMES[1])
    network.fuse[0].weight.data.fill_(3e38)  # finite, so the checkpoint is sound
    source = tmp_path / "big.safetensors"
    save(source, Checkpoint(NAMES[1], network))
    refused(source, tmp_path / "out.onnx")


def test_failure_on_the_way_leaves_nothing_behind(students, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "annotate", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(students[NAMES[0]][0], tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_exported_graph_keeps_height_and_width_free(students):
    graph = onnx.load(students[NAMES[0]][1]).graph
    image = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in image] == [1, "height", "width", 3]


def test_network_without_canonical_focal_length_exports_and_runs(planted, tmp_path):
    source = tmp_path / "net.safetensors"
    save(source, Checkpoint(NAMES[0], planted(NAMES[0]), {"name": "net"}))
    assert export(source, tmp_path / "net.onnx") <= exporter.TOLERANCE
