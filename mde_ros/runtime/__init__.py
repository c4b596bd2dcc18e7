"""torch, ONNX Runtime (CPU, CUDA, TensorRT) and OpenVINO behind one call.

A Runtime takes a uint8 RGB image at network resolution, the focal length there and, if the network
completes depth, sparse depth; it returns named maps in metres.
"""

from __future__ import annotations

from pathlib import Path

from mde_ros.config import PipelineSettings
from mde_ros.runtime.files import (
    check_mask,
    find_mask,
    find_model,
    read_header,
    read_spec,
    sha256_of,
    shipped_models,
)
from mde_ros.runtime.onnx_runtime import OnnxRuntime
from mde_ros.runtime.open_vino import OpenVino
from mde_ros.runtime.spec import (
    Alarm,
    Masked,
    ModelError,
    ModelSpec,
    Runtime,
    one_image,
    spec_from_json,
    spec_to_json,
)
from mde_ros.runtime.torch_runtime import Torch

__all__ = [
    "Alarm",
    "Masked",
    "ModelError",
    "ModelSpec",
    "OnnxRuntime",
    "Runtime",
    "candidates",
    "check_mask",
    "find_mask",
    "find_model",
    "load_defended",
    "load_runtime",
    "one_image",
    "read_header",
    "read_spec",
    "sha256_of",
    "shipped_models",
    "spec_from_json",
    "spec_to_json",
]

RUNTIMES: tuple[str, ...] = PipelineSettings.__dataclass_fields__["runtime"].metadata["choices"]
GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvgpu", "/dev/nvhost-gpu")  # PC, Jetson


def candidates(model: str, runtime: str, device: str) -> list[tuple[str, str]]:
    """(runtime, device) to try in turn; more than one only where the device is auto.

    Raises:
        ModelError: on a name that is no runtime or device.
    """
    if runtime not in RUNTIMES:
        raise ModelError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    kind, _, index = device.partition(":")
    if device not in ("auto", "cpu") and not (kind == "cuda" and (not index or index.isdigit())):
        raise ModelError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    suffix = Path(model).suffix
    on_cpu = "torch" if suffix == ".safetensors" else "onnxruntime"
    on_gpu = "onnxruntime" if suffix == ".onnx" else "torch"
    if runtime != "auto":
        on_cpu = on_gpu = runtime
    if device == "cpu":
        return [(on_cpu, "cpu")]
    if device != "auto":
        return [(on_gpu, f"cuda:{index or 0}")]
    if on_cpu == "openvino" or not any(Path(node).exists() for node in GPU_NODES):
        return [(on_cpu, "cpu")]
    if on_cpu == "tensorrt":
        return [("tensorrt", "cuda:0")]
    tried = [(on_gpu, "cuda:0"), (on_cpu, "cuda:0"), (on_cpu, "cpu")]
    return list(dict.fromkeys(tried))


def load_runtime(
    model: str = "default", runtime: str = "auto", device: str = "auto", threads: int = 2
) -> Runtime:
    """Load a shipped model or a file for a runtime and device.

    `runtime="auto"` takes torch for a checkpoint on a GPU and ONNX Runtime otherwise; torch is
    imported only when it is used. `device="auto"` takes a GPU where one is there and the installed
    runtime can use it, else the CPU: see the result's `device`.

    Raises:
        ModelError: when the model or the runtime is not to be had, saying what is.
    """
    *first, last = candidates(model, runtime, device)
    for choice in first:
        try:
            return _load(model, *choice, threads)
        except ModelError:
            continue  # nobody asked for this GPU; what is wrong with the model, the last one says
    return _load(model, *last, threads)


def load_defended(model: Runtime, mask: str = "auto", threads: int = 2) -> Runtime:
    """A loaded model once more, together with its mask, on the same runtime and device.

    Args:
        mask: auto, or a file; see find_mask.

    Raises:
        ModelError: when there is no such mask, or it belongs to other weights.
    """
    if model.spec.foreign:
        raise ModelError(
            f"mask: expected a network of this package, {model.path.name} is not; use defence:=off"
        )
    path = find_mask(mask, model)
    if model.name == "torch":
        check_mask(path, read_spec(path).masks, model.path.name, model.weights_sha256)
        return Torch(model.path, model.device, threads, path)
    if model.name == "openvino":
        defended: Runtime = OpenVino(path, threads)
    else:
        defended = OnnxRuntime(path, model.device, threads, tensorrt=model.name == "tensorrt")
    check_mask(path, defended.spec.masks, model.path.name, model.weights_sha256)
    return defended


def _load(model: str, runtime: str, device: str, threads: int) -> Runtime:
    loaded = _open(model, runtime, device, threads)
    if loaded.spec.masks:
        raise ModelError(
            f"model: {Path(model).name} is a mask of {loaded.spec.masks[0].model}; give it as mask"
        )
    return loaded


def _open(model: str, runtime: str, device: str, threads: int) -> Runtime:
    if runtime == "torch":
        path = find_model(model, ".safetensors")
        if path.suffix != ".safetensors":
            raise ModelError(f"runtime: torch runs .safetensors, got {path.name}; use onnxruntime")
        read_header(path)
        return Torch(path, device, threads)
    path = find_model(model, ".onnx")
    if path.suffix != ".onnx":
        raise ModelError(f"runtime: {runtime} runs .onnx, got {path.name}; use `mde export` first")
    if runtime == "openvino":
        if device != "cpu":
            raise ModelError(f"runtime: openvino runs on the CPU, got device {device}; use cpu")
        return OpenVino(path, threads)
    if runtime == "tensorrt" and device == "cpu":
        raise ModelError("runtime: tensorrt needs a GPU; use device:=cuda")
    return OnnxRuntime(path, device, threads, tensorrt=runtime == "tensorrt")
