"""torch, ONNX Runtime (CPU, CUDA, TensorRT) and OpenVINO behind one call.

A Runtime takes a uint8 RGB image at network resolution, the focal length there and, if the network
completes depth, sparse depth; it returns named maps in metres.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from mde_ros.config import ConfigError, PipelineSettings, build, check, setting

RUNTIMES: tuple[str, ...] = PipelineSettings.__dataclass_fields__["runtime"].metadata["choices"]
BY_DOMAIN = ("domain", "distances", "depth_each", "uncertainty_each")
GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvgpu", "/dev/nvhost-gpu")  # PC, Jetson
MASK = "-mask"  # MODEL-mask.safetensors, and MODEL-mask.onnx, which holds the model too
FP16_TOLERANCE = 0.02  # of the median depth


class ModelError(ValueError):
    """A model that cannot be found, read or run; the message says what to do."""


@dataclass(frozen=True)
class Masked:
    """A model that a mask may be used with: weights of exactly this hash."""

    model: str = setting("", "what it is called")
    sha256: str = setting("", "of its checkpoint")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Alarm:
    """When the monitor warns of a mask's model; see defence.disagreement."""

    threshold: float = setting(0.0, "disagreement that is too much; 0: not known", low=0, high=10)
    false_alarm_rate: float = setting(0.0, "part of clean frames above it", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ModelSpec:
    """What a network takes and gives; read from a checkpoint, an ONNX file or a YAML beside it.

    The fields from `layout` on describe a foreign network ("bring your own"); networks of this
    package have all of that inside and keep the defaults.
    """

    name: str = setting("", "what the model is called in tables")
    size: tuple[int, int] | None = setting(None, "fixed input width and height in pixels")
    pixels: int = setting(304 * 228, "input area when the size is free", low=1024)
    multiple: int = setting(4, "width and height are rounded to a multiple of this", low=1)
    focal_px: float | None = setting(
        None, "focal length in input pixels that the depth scale belongs to; none: no correction"
    )
    metric: bool = setting(True, "whether the output is metres, not relative depth")
    takes_points: bool = setting(False, "whether the network takes sparse depth too")
    domains: tuple[str, ...] = setting((), "names of a lifelong network's domains")
    masks: tuple[Masked, ...] = setting((), "of a mask: the models that it may be used with")
    alarm: Alarm = field(default_factory=Alarm)  # of a mask: when the monitor warns
    foreign: bool = setting(False, "normalise and correct outside the network, as given below")
    layout: str = setting("nchw", "order of a foreign network's input", choices=("nchw", "nhwc"))
    colour: str = setting("rgb", "channel order of a foreign network", choices=("rgb", "bgr"))
    scale: float = setting(1 / 255, "pixel values are multiplied by this first")
    mean: tuple[float, ...] = setting((0.0, 0.0, 0.0), "then this is subtracted, per channel")
    std: tuple[float, ...] = setting((1.0, 1.0, 1.0), "then divided by this, per channel")
    output: str = setting(
        "depth", "what a foreign network puts out", choices=("depth", "inverse_depth")
    )
    output_scale: float = setting(1.0, "metres (or 1/metres) per unit of output")

    def __post_init__(self) -> None:
        check(self)


class Runtime(Protocol):
    """A loaded network."""

    spec: ModelSpec
    name: str  # onnxruntime, torch, …
    device: str  # cpu, cuda:0, …
    path: Path
    sha256: str  # of the file that holds the weights
    weights_sha256: str  # of the checkpoint that they came from, as far as that is known

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """image (h, w, 3) uint8, sparse (h, w) float32 metres → {"depth": (h', w') float32, …}.

        Without sparse depth a completion network gets a map of no points.
        Depth is NaN where the network has none, so that resizing does not mix it with metres.
        Where the spec has domains, there are also domain (), distances (D,), depth_each and
        uncertainty_each (D, h', w'); with a mask there is saliency (h, w); see DepthModel.
        """


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_models() -> list[str]:
    """Names of the models that come with the package; their masks are none."""
    folder = resources.files("mde_ros") / "weights"
    names = (f.name[: -len(".onnx")] for f in folder.iterdir() if f.name.endswith(".onnx"))
    return sorted(name for name in names if not name.endswith(MASK))


def find_model(model: str, suffix: str) -> Path:
    """Path of a shipped model's file of this suffix, or of the file itself.

    Raises:
        ModelError: when there is neither, naming the shipped ones.
    """
    from mde_ros.weights import COMPLETION, DEFAULT

    names = {"default": DEFAULT, "completion": COMPLETION, **{n: n for n in shipped_models()}}
    if model in names:
        shipped = Path(str(resources.files("mde_ros") / "weights" / f"{names[model]}{suffix}"))
        if not shipped.is_file():
            raise ModelError(f"model: {shipped.name} does not come with this installation")
        return shipped
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(
            f"model: expected {', '.join(names)} or an existing .onnx or .safetensors file,"
            f" got {model!r}"
        )
    if path.suffix not in (".onnx", ".safetensors"):
        raise ModelError(
            f"model: expected a .onnx or .safetensors file, got {path.name!r}"
            " (pickled weights are never loaded; convert them with `mde export`)"
        )
    return path


def find_mask(mask: str, model: Runtime) -> Path:
    """The file that lets a loaded model's runtime run it with a mask.

    For torch that is the mask's checkpoint, otherwise an ONNX file of both. auto is MODEL-mask
    beside the model, or, for torch, any checkpoint NAME-mask there that names the model's hash.

    Raises:
        ModelError: when there is none, saying what to do.
    """
    suffix = ".safetensors" if model.name == "torch" else ".onnx"
    if mask == "auto":
        path = model.path.with_name(f"{model.path.stem}{MASK}{suffix}")
        if path.is_file():
            return path
        others = model.path.parent.glob(f"*{MASK}{suffix}") if model.name == "torch" else ()
        for other in sorted(others):
            if model.weights_sha256 in {m.sha256 for m in read_spec(other).masks}:
                return other
        raise ModelError(
            f"mask: there is none for {model.path.name} ({path.name} is not beside it); train one"
            " with `mde train defence`, or choose another model"
        )
    path = Path(mask).expanduser()
    if not path.is_file() or path.suffix not in (".onnx", ".safetensors"):
        raise ModelError(
            f"mask: expected auto or an existing .safetensors or .onnx file, got {mask!r}"
        )
    if not path.with_suffix(suffix).is_file():
        remedy = f"use `mde export {path.name}` first" if suffix == ".onnx" else "use onnxruntime"
        raise ModelError(f"mask: {model.name} runs {suffix}, got {path.name}; {remedy}")
    return path.with_suffix(suffix)


def check_mask(path: Path, masks: tuple[Masked, ...], model: str, sha256: str) -> None:
    """Refuse a mask that was trained for another model, or for other weights of this one.

    Args:
        path, masks: the mask's file, and the models that it says it may be used with.
        model, sha256: the file that it is to be used with, and the hash of its checkpoint.
    """
    if not masks:
        raise ModelError(f"mask: expected a mask, {path.name} is a network of another kind")
    if sha256 not in {m.sha256 for m in masks}:
        expected = ", ".join(f"{m.model} of SHA-256 {m.sha256[:12]}…" for m in masks)
        raise ModelError(
            f"mask: {path.name} belongs to {expected}, got {model} of {sha256[:12]}…; train one"
            " with `mde train defence`, or choose its model"
        )


def read_spec(path: Path) -> ModelSpec:
    """The spec in a checkpoint, read without torch.

    Raises:
        ModelError: when it is no checkpoint of this package.
    """
    about = read_header(path).get("__metadata__", {})
    try:
        return spec_from_json(json.dumps(json.loads(about["mde_ros"])["spec"]), str(path))
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ModelError(f"{path}: expected a checkpoint of this package") from None


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, read without loading tensors.

    Raises:
        ModelError: when the file is missing, truncated or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(100_000_000, path.stat().st_size - 8):
                raise ValueError("the length of its header does not fit its size")
            header = json.loads(file.read(length))
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        if max(ends, default=0) + 8 + length != path.stat().st_size:
            raise ValueError("it is truncated")
        return header
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from None


def spec_from_json(text: str, source: str) -> ModelSpec:
    """Parse the spec stored in a checkpoint or ONNX file.

    Raises:
        ModelError: when it is not one of this package.
    """
    try:
        return build(ModelSpec, json.loads(text), source)
    except (json.JSONDecodeError, ConfigError) as error:
        raise ModelError(f"{source}: its description cannot be used ({error})") from None


def spec_to_json(spec: ModelSpec) -> str:
    """The spec as it is stored; only what differs from the defaults."""
    default, values = dataclasses.asdict(ModelSpec()), dataclasses.asdict(spec)
    return json.dumps({k: v for k, v in values.items() if v != default[k]})


def linked_weights(path: Path, about: Mapping[str, str]) -> str | None:
    """Hash of the checkpoint that an ONNX file points into; None when it holds its own weights.

    Raises:
        ModelError: when that checkpoint, or that of the mask, has changed since the export.
    """
    if "weights" not in about:
        return None
    for kind in ("weights", "mask") if "mask" in about else ("weights",):
        linked, expected = path.with_name(Path(about[kind]).name), about[f"{kind}_sha256"]
        found = sha256_of(linked) if linked.is_file() else "no file"
        if found != expected:
            raise ModelError(
                f"{path}: expected {linked.name} beside it with SHA-256 {expected[:12]}…,"
                f" got {found[:12]}; export it again"
            )
    return about["weights_sha256"]


def _unreadable(path: Path, error: Exception) -> ModelError:
    """The sentence for an ONNX file that a library refused.

    A file linked to a checkpoint (see export.link) is refused too when that checkpoint is missing
    or of another size. What it says of it is looked up in its bytes: two string fields, each after
    a tag and a length (protobuf's StringStringEntryProto).
    """
    data = path.read_bytes()
    fields = re.finditer(rb"\x0a.((?:weights|mask)(?:_sha256)?)\x12(.)", data, re.DOTALL)
    about = {m[1].decode(): data[m.end() :][: m[2][0]].decode("utf-8", "replace") for m in fields}
    try:
        linked_weights(path, about)
    except ModelError as known:
        return known
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ModelError(f"{path}: not a readable ONNX network ({reason})")


def _foreign_spec(path: Path, sha256: str) -> ModelSpec:
    side = path.with_suffix(".yaml")
    known = yaml.safe_load((resources.files("mde_ros") / "weights/known.yaml").read_text("utf-8"))
    if not side.is_file() and sha256 not in known:
        raise ModelError(
            f"{path.name}: not exported by this package, and {side.name} is not beside it; write"
            " one that gives size, mean, std, scale, output and focal_px (see the README)"
        )
    try:
        values = known.get(sha256)
        if side.is_file():
            values = yaml.safe_load(side.read_text(encoding="utf-8")) or {}
        return build(ModelSpec, {"name": path.stem, "foreign": True, **values}, str(side))
    except (yaml.YAMLError, ConfigError, TypeError) as error:
        raise ModelError(f"{side}: {error}") from None


def _with_size(spec: ModelSpec, network_input: Any, path: Path) -> ModelSpec:
    """The spec with the input size that a foreign network prescribes, if it does."""
    if network_input.type != "tensor(float)" or len(network_input.shape) != 4:
        raise ModelError(
            f"{path}: expected an input of four dimensions of type float, got"
            f" {network_input.type} {network_input.shape}"
        )
    height, width = network_input.shape[2:] if spec.layout == "nchw" else network_input.shape[1:3]
    prescribed = tuple(
        side if isinstance(side, int) else given
        for side, given in zip((width, height), spec.size or (None, None))
    )
    if None in prescribed:
        return spec
    if spec.size not in (None, prescribed):
        raise ModelError(
            f"{path}: the network takes {width}x{height} pixels, but its description gives size"
            f" {list(spec.size or ())}"
        )
    return dataclasses.replace(spec, size=prescribed)  # type: ignore[arg-type]


def _points_or_none(sparse: np.ndarray | None, image: np.ndarray) -> np.ndarray:
    """What a completion network is fed: (1, 1, h, w) float32 metres, all 0 without points."""
    if sparse is None:
        return np.zeros((1, 1, *image.shape[:2]), np.float32)
    return np.ascontiguousarray(sparse, np.float32)[None, None]


def one_image(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The only image of a batch: maps (h, w), and what has a value for each domain (D, …)."""
    return {k: v[0] if k in BY_DOMAIN else v[0, 0] for k, v in outputs.items()}


class OnnxRuntime:
    """ONNX Runtime on CPU, CUDA or TensorRT; takes our exports and foreign depth networks."""

    PROVIDERS = {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
    }

    def __init__(
        self, path: Path, device: str = "cpu", threads: int = 2, tensorrt: bool = False
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            reason = str(error).splitlines()[0][:200]
            raise ModelError(
                f"runtime: onnxruntime cannot be imported ({reason}); pip install onnxruntime"
            ) from None
        self.path, self.device, self.sha256 = path, device, sha256_of(path)
        self.name = "tensorrt" if tensorrt else "onnxruntime"
        kind = "tensorrt" if tensorrt else device.split(":")[0]
        provider = self.PROVIDERS[kind]
        if provider not in ort.get_available_providers():
            raise ModelError(
                f"runtime: this onnxruntime has no {provider}; it has"
                f" {', '.join(ort.get_available_providers())} (install onnxruntime-gpu)"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # A spinning pool starves the rest of a robot's CPU for a few percent of speed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=self._providers(kind)
            )
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise _unreadable(path, error) from None
        self._session.disable_fallback()
        if provider not in self._session.get_providers():
            raise ModelError(
                f"runtime: {provider} could not be loaded (do the driver, CUDA and cuDNN fit this"
                " onnxruntime?); use device:=cpu"
            )
        about = self._session.get_modelmeta().custom_metadata_map
        self.sha256 = linked_weights(path, about) or self.sha256
        self.weights_sha256 = about.get("weights_sha256", self.sha256)
        stored = about.get("mde_ros")
        self.spec = (
            spec_from_json(stored, str(path)) if stored else _foreign_spec(path, self.sha256)
        )
        if self.spec.foreign:
            self.spec = _with_size(self.spec, self._session.get_inputs()[0], path)
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]

    def _providers(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Execution providers and their options, the preferred one first."""
        if kind == "cpu":
            return [(self.PROVIDERS["cpu"], {})]
        index = {"device_id": int(self.device.partition(":")[2] or 0)}
        cuda = (self.PROVIDERS["cuda"], index)
        if kind == "cuda":
            return [cuda]
        # A folder per file: the names of engines in the cache do not depend on the weights.
        cache = Path("~/.cache/mde_ros/tensorrt").expanduser() / self.sha256[:16]
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"runtime: {cache} cannot be written ({error.strerror})") from None
        engine = {
            "trt_fp16_enable": True,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
        }
        return [(self.PROVIDERS["tensorrt"], index | engine), cuda]

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        if self.spec.foreign:
            return self._call_foreign(image, focal_px)
        feed = {"image": image[None], "focal_px": np.array([focal_px], np.float32)}
        if self.spec.takes_points:
            feed["sparse_m"] = _points_or_none(sparse, image)
        values = self._run(self._outputs, feed)
        return one_image(dict(zip(self._outputs, values)))

    def _run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list:
        try:
            return self._session.run(outputs, feed)
        except Exception as error:  # onnxruntime's own exceptions share no other base
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{self.path.name}: inference failed ({reason})") from None

    def _call_foreign(self, image: np.ndarray, focal_px: float) -> dict[str, np.ndarray]:
        spec = self.spec
        x = image if spec.colour == "rgb" else image[..., ::-1]
        std, mean = np.array(spec.std, np.float32), np.array(spec.mean, np.float32)
        x = x * (np.float32(spec.scale) / std) - mean / std
        x = x[None] if spec.layout == "nhwc" else x.transpose(2, 0, 1)[None]
        raw = self._run(self._outputs[:1], {self._inputs[0]: np.ascontiguousarray(x)})[0]
        value = np.asarray(raw, np.float32).squeeze()
        if value.ndim != 2:
            raise ModelError(f"{self.path}: expected one depth map, got an output of {raw.shape}")
        value = value * np.float32(spec.output_scale)
        if spec.output == "inverse_depth":
            value = np.where(value > 0, 1 / np.maximum(value, 1e-9), np.nan).astype(np.float32)
        if spec.focal_px:
            value = value * np.float32(focal_px / spec.focal_px)
        return {"depth": value}


class OpenVino:
    """OpenVINO on the CPU, for networks exported by this package."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        try:
            import openvino
        except ImportError:
            raise ModelError("runtime: openvino is not installed (pip install openvino)") from None
        self.path, self.device, self.sha256 = path, "cpu", sha256_of(path)
        self.name = "openvino"
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            raise _unreadable(path, error) from None
        if not model.has_rt_info(["framework", "mde_ros"]):
            raise ModelError(f"{path.name}: openvino runs networks exported by this package only")
        about = {
            key: model.get_rt_info(["framework", key]).astype(str)
            for key in ("mde_ros", "weights", "weights_sha256", "mask", "mask_sha256")
            if model.has_rt_info(["framework", key])
        }
        self.sha256 = linked_weights(path, about) or self.sha256
        self.weights_sha256 = about.get("weights_sha256", self.sha256)
        self.spec = spec_from_json(about["mde_ros"], str(path))
        # OpenVINO would pick bf16 on its own where the CPU has it, which moves depth by 1 %.
        hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core.compile_model(model, "CPU", hints)
        self._request = self._compiled.create_infer_request()

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        feed = {"image": image[None], "focal_px": np.array([focal_px], np.float32)}
        if self.spec.takes_points:
            feed["sparse_m"] = _points_or_none(sparse, image)
        result = self._request.infer(feed)
        # Where OpenVINO drops an operation, a port has the name of its output beside that of ours.
        outputs = {min(port.get_names(), key=_internal): v for port, v in result.items()}
        return {name: np.array(value) for name, value in one_image(outputs).items()}


def _internal(name: str) -> bool:
    """Whether a tensor's name is one that torch's exporter made up."""
    return "/" in name


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
            inputs.append(torch.from_numpy(_points_or_none(sparse, image)))
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
