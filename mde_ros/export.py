"""Checkpoint → ONNX, the whole DepthModel with it; refuses when parity with torch fails."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from mde_ros import checkpoint as checkpoints
from mde_ros.model import DepthModel
from mde_ros.runtime import (
    ModelError,
    ModelSpec,
    OnnxRuntime,
    check_mask,
    find_model,
    one_image,
    read_header,
    read_spec,
    sha256_of,
    spec_from_json,
    spec_to_json,
)

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
            padding_mode=head.padding_mode,
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

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(*inputs)
        return tuple(outputs[name] for name in self.names)


def example(spec: ModelSpec, seed: int = 0) -> list[Tensor]:
    """A smooth random image at the network's size, a focal length and, for completion, a line."""
    generator = torch.Generator().manual_seed(seed)
    width, height = spec.size or (round(s / spec.multiple) * spec.multiple for s in (304, 228))
    coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    inputs = [image.byte().permute(0, 2, 3, 1).contiguous(), torch.tensor([spec.focal_px or 270.0])]
    if spec.takes_points:
        sparse_m = torch.zeros(1, 1, height, width)
        sparse_m[..., height // 2, :] = torch.linspace(1, 4, width)
        inputs.append(sparse_m)
    return inputs


def model_of(mask: Path) -> Path:
    """The checkpoint of the first model that a mask says it may be used with.

    Raises:
        ModelError: when it lies neither beside the mask nor among the shipped models.
    """
    name = read_spec(mask).masks[0].model
    beside = mask.with_name(f"{name}.safetensors")
    try:
        return beside if beside.is_file() else find_model(name, ".safetensors")
    except ModelError:
        raise ModelError(
            f"{mask.name}: it belongs to {name}, and there is no {beside.name} beside it; name it"
            " with --model"
        ) from None


def export(source: Path, target: Path, linked: bool = False, mask: Path | None = None) -> float:
    """Write a checkpoint's network as ONNX with dynamic height and width.

    Completion networks are compared with torch with points and without.

    Args:
        linked: leave the weights in the checkpoint, which must lie in the target's folder, and
            let the ONNX file point into it: one copy of the weights for both runtimes.
        mask: checkpoint of a mask that is applied first; linked, it must lie there too.

    Returns the largest relative difference from torch.

    Raises:
        CheckpointError: when the checkpoint cannot be read.
        ParityError: when the ONNX network differs by more than TOLERANCE; nothing is written.
        ModelError: when it is to be linked to a checkpoint in another folder, or the mask belongs
            to other weights.
    """
    files = {"weights": source} | ({"mask": mask} if mask else {})
    for file in files.values() if linked else ():
        if file.resolve().parent != target.resolve().parent:
            raise ModelError(
                f"{target}: a linked network must lie beside its checkpoint, in {file.parent}"
            )
    loaded = checkpoints.load(source)
    spec, applied = spec_from_json(json.dumps(loaded.spec), str(source)), None
    if mask:
        about, sha256 = read_spec(mask), sha256_of(source)
        check_mask(mask, about.masks, source.name, sha256)
        ours = tuple(m for m in about.masks if m.sha256 == sha256)
        spec = replace(spec, masks=ours, alarm=about.alarm)
        applied = checkpoints.load(mask).network
    model = DepthModel(loaded.network, spec.focal_px, applied).eval()
    inputs = example(spec)
    cases = [inputs]
    if spec.takes_points:
        cases.append([*inputs[:2], torch.zeros_like(inputs[2])])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        write_graph(model, inputs, partial, fold=not linked)
        annotate(partial, spec, files, linked)
        difference = compare(partial, model, cases)
        if not difference <= TOLERANCE:  # so that NaN fails too
            raise ParityError(
                f"{target}: the exported network differs from torch by {difference:.1e},"
                f" expected at most {TOLERANCE:.0e}; it was not written"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def write_graph(model: DepthModel, inputs: list[Tensor], path: Path, fold: bool = True) -> None:
    """Trace the model into an ONNX file; `fold` merges batch norms into convolutions."""
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with torch.inference_mode():
        outputs = model(*inputs)
    names, maps = list(outputs), [name for name, value in outputs.items() if value.ndim == 4]
    axes = {"image": {1: "height", 2: "width"}, "sparse_m": {2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(split_heads(deepcopy(model)), names).eval(),  # type: ignore[arg-type]
            tuple(inputs),
            str(path),
            input_names=["image", "focal_px", "sparse_m"][: len(inputs)],
            output_names=names,
            dynamic_axes=axes | {n: {2: f"{n}_height", 3: f"{n}_width"} for n in maps},
            opset_version=OPSET,
            do_constant_folding=fold,
            training=mode,
            dynamo=False,
        )


def annotate(path: Path, spec: ModelSpec, files: Mapping[str, Path], linked: bool) -> None:
    """Put the spec into an ONNX file, and the hashes of its checkpoints; link them if asked.

    Args:
        files: "weights", and "mask" if there is one.
    """
    model = onnx.load(path)
    about = {"mde_ros": spec_to_json(spec)}
    for kind, file in files.items():
        about[f"{kind}_sha256"] = sha256_of(file)
        if linked:
            about[kind] = file.name
            link(model.graph, file, "model.mask." if kind == "mask" else "model.network.")
    helper.set_model_props(model, about)
    onnx.save(model, path)
    onnx.checker.check_model(str(path))


def link(graph: onnx.GraphProto, weights: Path, prefix: str) -> None:
    """Replace the initializers of this prefix by references to tensors in a safetensors file.

    ONNX reads external data as raw little-endian bytes at an offset, which is how safetensors
    stores them. Tensors kept as fp16 are widened by a Cast, which the runtime folds once.
    """
    header = read_header(weights)
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    data_at = weights.stat().st_size - max(ends)  # the tensors are the file's tail
    casts = []
    for initializer in graph.initializer:
        if not initializer.name.startswith(prefix):
            continue
        # A split head's depthwise weight has the bytes of the original in the same order.
        name = initializer.name.removeprefix(prefix)
        name = name.replace(".spatial.weight", ".weight").replace(".sum.bias", ".bias")
        entry = header.get(name)
        if entry is None:
            continue
        begin, end = entry["data_offsets"]
        half = entry["dtype"] == "F16"
        reference = onnx.TensorProto(
            name=initializer.name + ("_fp16" if half else ""),
            data_type=onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT,
            dims=initializer.dims,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        place = {"location": weights.name, "offset": data_at + begin, "length": end - begin}
        for key, value in place.items():
            reference.external_data.add(key=key, value=str(value))
        if half:
            casts.append(
                helper.make_node(
                    "Cast", [reference.name], [initializer.name], to=onnx.TensorProto.FLOAT
                )
            )
        initializer.CopyFrom(reference)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def compare(path: Path, model: DepthModel, cases: list[list[Tensor]]) -> float:
    """Largest difference of an ONNX file's outputs from torch's, relative to their median.

    Of what is 0 by the median, such as the number of the first domain, it is the plain difference.
    """
    runtime, differences = OnnxRuntime(path), []
    for inputs in cases:
        with torch.inference_mode():
            expected = one_image({name: value.numpy() for name, value in model(*inputs).items()})
        image, focal_px, *sparse = (x.numpy() for x in inputs)
        outputs = runtime(image[0], float(focal_px[0]), *(s[0, 0] for s in sparse))
        if set(outputs) != set(expected):
            raise ParityError(f"{path}: expected outputs {sorted(expected)}, got {sorted(outputs)}")
        differences += [
            np.abs(outputs[k] - v).max() / (np.median(np.abs(v)) or 1.0)
            for k, v in expected.items()
        ]
    return float(np.max(differences))  # NaN if any is
