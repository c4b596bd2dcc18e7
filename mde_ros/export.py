"""Checkpoint → ONNX, the whole DepthModel with it; refuses when parity with torch fails."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mde_ros import checkpoint as checkpoints
from mde_ros.model import DepthModel
from mde_ros.runtime import ModelError, ModelSpec, OnnxRuntime, spec_from_json, spec_to_json

OPSET = 17
TOLERANCE = 1e-3  # largest relative difference from torch


class ParityError(ValueError):
    """The exported network does not compute what the torch network does."""


class SplitHead(nn.Module):
    """A k×k convolution to one channel as a depthwise one and a sum over channels: the same values.

    CPU runtimes have fast kernels for the depthwise form and none for a single output channel
    (4.3 ms of 36 at 304x228).
    """

    def __init__(self, head: nn.Conv2d) -> None:
        super().__init__()
        channels = head.in_channels
        self.spatial = nn.Conv2d(
            channels,
            channels,
            head.kernel_size,  # type: ignore[arg-type]
            padding=head.padding,  # type: ignore[arg-type]
            groups=channels,
            bias=False,
        )
        self.sum = nn.Conv2d(channels, 1, 1)
        with torch.no_grad():
            self.spatial.weight.copy_(head.weight.transpose(0, 1))
            self.sum.weight.fill_(1)
            self.sum.bias.copy_(head.bias if head.bias is not None else torch.zeros(1))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.spatial(x))


def split_heads(network: nn.Module) -> nn.Module:
    """Replace every spatial convolution to one channel by a SplitHead; returns the network."""
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d) and child.out_channels == 1 and child.kernel_size != (1, 1):
            setattr(network, name, SplitHead(child))
        else:
            split_heads(child)
    return network


class _Outputs(nn.Module):
    """DepthModel with its dictionary as a tuple, which is what ONNX has."""

    def __init__(self, model: DepthModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, image: Tensor, focal_px: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(image, focal_px)
        return tuple(outputs[name] for name in self.names)


def example(spec: ModelSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth random image at the network's size and a focal length."""
    generator = torch.Generator().manual_seed(seed)
    width, height = spec.size or (304, 228)
    coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    return image.byte().permute(0, 2, 3, 1).contiguous(), torch.tensor([(spec.focal_px or 270.0)])


def export(source: Path, target: Path, half: bool = False) -> float:
    """Write a checkpoint's network as ONNX with dynamic height and width.

    Args:
        half: store the weights as fp16; they are widened to fp32 when the network is loaded.

    Returns the largest relative difference from torch.

    Raises:
        CheckpointError: when the checkpoint cannot be read.
        ParityError: when the ONNX network differs by more than TOLERANCE; nothing is written.
    """
    loaded = checkpoints.load(source)
    spec = spec_from_json(json.dumps(loaded.spec), str(source))
    model = DepthModel(loaded.network, spec.focal_px).eval()
    image, focal_px = example(spec)
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in model(image, focal_px).items()}
    names = list(expected)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    sizes = {1: "height", 2: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(split_heads(deepcopy(model)), names).eval(),  # type: ignore[arg-type]
            (image, focal_px),
            str(partial),
            input_names=["image", "focal_px"],
            output_names=names,
            dynamic_axes={"image": sizes} | {n: {2: f"{n}_height", 3: f"{n}_width"} for n in names},
            opset_version=OPSET,
            dynamo=False,
        )
    describe(partial, spec, half)
    try:
        difference = compare(partial, image.numpy()[0], float(focal_px), expected)
        if difference > TOLERANCE:
            raise ParityError(
                f"{target}: the exported network differs from torch by {difference:.1e},"
                f" expected at most {TOLERANCE:.0e}; it was not written"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def describe(path: Path, spec: ModelSpec, half: bool) -> None:
    """Put the spec into an ONNX file and, if asked, store its large weights as fp16."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "mde_ros", spec_to_json(spec)
    if half:
        casts = []
        for weight in model.graph.initializer:
            if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 256:
                continue
            values = numpy_helper.to_array(weight).astype(np.float16)
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values, name + "_fp16"))
            casts.append(helper.make_node("Cast", [name + "_fp16"], [name], to=TensorProto.FLOAT))
        for node in reversed(casts):  # constant folding undoes them once, when the file is loaded
            model.graph.node.insert(0, node)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def compare(
    path: Path, image: np.ndarray, focal_px: float, expected: dict[str, np.ndarray]
) -> float:
    """Largest difference of an ONNX file's outputs from torch's, relative to their median."""
    outputs = OnnxRuntime(path)(image, focal_px)
    if set(outputs) != set(expected):
        raise ModelError(f"{path}: expected outputs {sorted(expected)}, got {sorted(outputs)}")
    return max(
        float(np.abs(outputs[k] - v[0, 0]).max() / np.median(np.abs(v)))
        for k, v in expected.items()
    )
