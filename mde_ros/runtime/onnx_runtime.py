"""ONNX Runtime: our exports and foreign networks, on a CPU, CUDA or TensorRT."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mde_ros.config import ConfigError, build
from mde_ros.runtime.files import linked_weights, sha256_of, unreadable
from mde_ros.runtime.spec import ModelError, ModelSpec, one_image, points_or_none, spec_from_json


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
            raise unreadable(path, error) from None
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
        self.spec = spec_from_json(stored, str(path)) if stored else foreign_spec(path, self.sha256)
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
            feed["sparse_m"] = points_or_none(sparse, image)
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


def foreign_spec(path: Path, sha256: str) -> ModelSpec:
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
