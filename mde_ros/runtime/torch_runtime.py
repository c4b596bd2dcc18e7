"""torch: checkpoints, on a CPU or in a CUDA graph."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.runtime.files import sha256_of
from mde_ros.runtime.spec import ModelError, ModelSpec, one_image, points_or_none, spec_from_json

FP16_TOLERANCE = 0.02  # of the median depth


class Torch:
    """A checkpoint run by torch: fp32 on a CPU; fp16 inside a CUDA graph on a GPU.

    Where fp16 moves the depth of a test image by more than FP16_TOLERANCE, a GPU keeps fp32 too.

    Args:
        mask: checkpoint of a mask that belongs to it.
    """

    name = "torch"

    def __init__(
        self, path: Path, device: str = "cpu", threads: int = 2, mask: Path | None = None
    ) -> None:
        try:
            import torch

            from mde_ros import checkpoint
            from mde_ros.model import DepthModel
        except (ImportError, OSError) as error:  # OSError: a library of CUDA is missing
            reason = str(error).splitlines()[0][:200]
            raise ModelError(
                f"runtime: torch cannot be imported ({reason}); install it or use an .onnx file"
            ) from None
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError("device: cuda was asked for, but torch sees no GPU; use device:=cpu")
        if threads and device == "cpu":
            torch.set_num_threads(threads)
        self.path, self.device = mask or path, device
        self.sha256 = self.weights_sha256 = sha256_of(path)
        self.precision = "fp32"
        self._torch = torch
        try:
            loaded = checkpoint.load(path)
            applied = checkpoint.load(mask) if mask else None
        except checkpoint.CheckpointError as error:
            raise ModelError(str(error)) from None
        self.spec = spec_from_json(json.dumps(loaded.spec), str(path))
        if applied:
            about = spec_from_json(json.dumps(applied.spec), str(mask))
            self.spec = dataclasses.replace(self.spec, masks=about.masks, alarm=about.alarm)
        self._model = DepthModel(
            loaded.network, self.spec.focal_px, applied.network if applied else None
        ).eval()
        self._graphs: dict[tuple, _CudaGraph] = {}
        if device != "cpu":
            torch.backends.cudnn.benchmark = True
            try:
                self._model.to(device)
                half = copy.deepcopy(self._model).half()
                if same_depth(self._model, half, self.spec, device):
                    self._model, self.precision = half, "fp16"
            except RuntimeError as error:  # no memory, no such GPU, no kernels for it
                reason = str(error).splitlines()[0][:200]
                raise ModelError(
                    f"device: {device} cannot run {path.name} ({reason}); use device:=cpu"
                ) from None

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        torch = self._torch
        inputs = [
            torch.from_numpy(np.ascontiguousarray(image))[None],
            torch.tensor([focal_px], dtype=torch.float32),
        ]
        if self.spec.takes_points:
            inputs.append(torch.from_numpy(points_or_none(sparse, image)))
        with torch.inference_mode():
            if self.device == "cpu":
                outputs = self._model(*inputs)
            else:
                key = image.shape[:2]
                if key not in self._graphs:
                    self._graphs = {key: _CudaGraph(self._model, inputs, self.device)}
                outputs = self._graphs[key](inputs)
        widened = {k: v.float() if v.is_floating_point() else v for k, v in outputs.items()}
        return {name: value.numpy() for name, value in one_image(widened).items()}


def same_depth(exact: Any, rough: Any, spec: ModelSpec, device: str) -> bool:
    """Whether a copy of a DepthModel in lower precision gives the same metres for a test image.

    A smooth texture of the network's input size; every pixel must agree to FP16_TOLERANCE of the
    median, which what is not finite never does.
    """
    import torch

    side = max(1, round(spec.pixels**0.5 / spec.multiple)) * spec.multiple
    width, height = spec.size or (side, side)
    y, x = np.mgrid[:height, :width][..., None] / 16
    image = (128 + 60 * np.sin(x + [0, 1, 2]) + 60 * np.cos(y - [0, 2, 1])).astype(np.uint8)
    inputs = [torch.from_numpy(image)[None], torch.tensor([spec.focal_px or float(width)])]
    if spec.takes_points:
        inputs.append(torch.zeros(1, 1, height, width))
        inputs[-1][..., height // 2, :] = 3.0
    with torch.inference_mode():
        inputs = [i.to(device) for i in inputs]
        expected, got = exact(*inputs)["depth"].float(), rough(*inputs)["depth"].float()
        return bool(((got - expected).abs() <= FP16_TOLERANCE * expected.median()).all())


class _CudaGraph:
    """A network captured for one input size: pinned upload, replay, one synchronisation."""

    def __init__(self, model: Any, inputs: list, device: str) -> None:
        import torch

        self._device = device
        self._pinned = [torch.empty_like(x).pin_memory() for x in inputs]
        self._static = [x.to(device) for x in inputs]
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(3):  # cuDNN picks its algorithms before the capture
                    model(*self._static)
            torch.cuda.current_stream().wait_stream(self._stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._outputs = model(*self._static)
        self._host = {
            name: torch.empty(value.shape, dtype=value.dtype).pin_memory()
            for name, value in self._outputs.items()
        }

    def __call__(self, inputs: list) -> dict:
        import torch

        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for pinned, static, value in zip(self._pinned, self._static, inputs):
                pinned.copy_(value)
                static.copy_(pinned, non_blocking=True)
            self._graph.replay()
            for name, value in self._outputs.items():
                self._host[name].copy_(value, non_blocking=True)
        self._stream.synchronize()
        # The buffers are reused by the next frame, so the caller gets its own copy.
        return {name: value.clone() for name, value in self._host.items()}
