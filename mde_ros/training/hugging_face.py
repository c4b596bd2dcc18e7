"""Depth models of Hugging Face as a runtime, so that a pipeline can run one as a teacher.

Needs the extra `transformers`, and no torchvision: images are prepared here, as the model's own
preprocessor_config.json says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mde_ros.runtime import ModelError, ModelSpec

KNOWN = {"glpn": "metres", "zoedepth": "metres", "dpt": "inverse_depth"}  # by type of model


class HuggingFace:
    """A model of AutoModelForDepthEstimation behind the call of runtime.Runtime.

    Args:
        name: on the hub, or a folder that save_pretrained wrote, with its preprocessor_config.json.
        gives: metres, depth or inverse_depth (both relative); auto: by the type of model.

    Raises:
        ModelError: when it cannot be had, or nobody knows what it puts out. ImportError: without
            transformers.
    """

    name = "transformers"

    def __init__(self, name: str, gives: str = "auto") -> None:
        from transformers import AutoModelForDepthEstimation
        from transformers.utils import cached_file

        try:
            # Weights as safetensors only: no code is unpickled.
            model = AutoModelForDepthEstimation.from_pretrained(name, use_safetensors=True)
            self.path = Path(str(cached_file(name, "preprocessor_config.json")))
            how = json.loads(self.path.read_text(encoding="utf-8"))
        except ImportError:
            raise
        except Exception as error:  # of the network, the hub, the disk, a file
            reason = (str(error).splitlines() or [repr(error)])[0]
            raise ModelError(
                f"teacher: {name} cannot be had from Hugging Face ({reason})"
            ) from None
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.sha256 = self.weights_sha256 = getattr(model.config, "_commit_hash", None) or ""
        self._model = model.eval().to(self.device)
        self._factor = float(how.get("rescale_factor", 1 / 255)) if how.get("do_rescale", 1) else 1
        normalised = how.get("do_normalize", "image_mean" in how)
        self._mean = np.array(how["image_mean"] if normalised else [0] * 3, np.float32)
        self._std = np.array(how["image_std"] if normalised else [1] * 3, np.float32)
        gives = what_it_gives(model.config, name) if gives == "auto" else gives
        self.spec = ModelSpec(
            name=Path(name).name,
            metric=gives == "metres",
            output="inverse_depth" if gives == "inverse_depth" else "depth",
            **input_size(how, model.config),
        )

    def __call__(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """As of Runtime: depth (h', w') float32, NaN where there is none; the spec says of what."""
        x = (image * np.float32(self._factor) - self._mean) / self._std
        batch = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None].to(self.device)
        with torch.inference_mode():
            value = self._model(pixel_values=batch).predicted_depth.float().squeeze().cpu().numpy()
        if self.spec.output == "inverse_depth":
            value = np.where(value > 0, 1 / np.maximum(value, 1e-9), np.nan).astype(np.float32)
        return {"depth": value}


def what_it_gives(config: Any, name: str) -> str:
    """metres or inverse_depth, from a model's configuration.

    Raises:
        ModelError: when it does not tell.
    """
    kind = str(config.model_type)
    if kind == "depth_anything":
        return "metres" if config.depth_estimation_type == "metric" else "inverse_depth"
    if kind not in KNOWN:
        raise ModelError(
            f"teacher_gives: expected metres, depth or inverse_depth for {name}, whose type {kind}"
            " does not tell; its card does"
        )
    return KNOWN[kind]


def input_size(how: dict[str, Any], config: Any) -> dict[str, Any]:
    """size of a ModelSpec where it is fixed, pixels and multiple where not; of a preprocessor."""
    size = how.get("size", {"height": 480, "width": 640})
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if "shortest_edge" in size:
        size = {"height": size["shortest_edge"], "width": size["shortest_edge"] * 4 // 3}
    width, height = int(size["width"]), int(size["height"])
    multiple = max(int(how.get("ensure_multiple_of", 1)), int(how.get("size_divisor", 1)))
    # A DPT whose backbone is not a model of its own takes no other shape than its size.
    any_shape = how.get("keep_aspect_ratio", False) and getattr(config, "backbone_config", None)
    if "size" in how and not any_shape:
        return {"size": (width, height)}
    return {"pixels": width * height, "multiple": multiple if multiple > 1 else 32}
