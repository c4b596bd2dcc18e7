"""OpenVINO: networks exported by this package, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.runtime.files import linked_weights, sha256_of, unreadable
from mde_ros.runtime.spec import ModelError, one_image, points_or_none, spec_from_json


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
            raise unreadable(path, error) from None
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
            feed["sparse_m"] = points_or_none(sparse, image)
        result = self._request.infer(feed)
        # Where OpenVINO drops an operation, a port has the name of its output beside that of ours.
        outputs = {min(port.get_names(), key=_internal): v for port, v in result.items()}
        return {name: np.array(value) for name, value in one_image(outputs).items()}


def _internal(name: str) -> bool:
    """Whether a tensor's name is one that torch's exporter made up."""
    return "/" in name
