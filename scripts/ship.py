"""Put a trained checkpoint among the shipped models.

    python scripts/ship.py CHECKPOINT NAME [SET[:SKIP_LAST] …]

Writes mde_ros/weights/NAME.safetensors (fp16) and NAME.onnx, which points into it. A mask is for
the model that it was trained for, and for those with the same trunk (weights.py); MODEL-mask.onnx
is the defended model of each, and points into the model's weights too. With data sets (labelled,
without the frames held out) what training leaves wrong by a factor is put right:

- of a student the canonical focal length, so that the median of prediction / truth is 1: training
  on log-depth with edge terms leaves depth a few per cent too near;
- of a completion network, which has its scale from the scan, the uncertainty, so that 68 % of the
  errors lie within it: a network is surer of what it was trained on than of what it was not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from weights import TRUNKS

from mde_ros import checkpoint
from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.export import export
from mde_ros.frame import Prediction
from mde_ros.geometry import median_scale
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import sha256_of
from mde_ros.runtime.files import MASK

WEIGHTS = Path(__file__).parent.parent / "mde_ros" / "weights"
EVERY = 10  # frames
SCAN = VirtualScan(0.3)


def focal_factor(prediction: Prediction, truth_m: np.ndarray) -> float:
    """Median of prediction / truth."""
    return 1 / median_scale(prediction.depth, truth_m)


def uncertainty_factor(prediction: Prediction, truth_m: np.ndarray) -> float:
    """What the uncertainty must be multiplied by for 68.3 % of the errors to lie within it."""
    assert prediction.uncertainty is not None
    valid = (truth_m > 0) & (prediction.uncertainty > 0)
    errors = np.abs(prediction.depth[valid] - truth_m[valid]) / prediction.uncertainty[valid]
    return float(np.percentile(errors, 68.27))


def factor_of(
    model: Path, sets: list[str], measure: Callable[[Prediction, np.ndarray], float]
) -> float:
    """Geometric mean over the sets of that of their frames' factors."""
    pipeline = DepthPipeline(PipelineSettings(model=str(model), device="cpu"))
    logs = []
    for entry in sets:
        path, _, skip = entry.partition(":")
        data = open_dataset(path)
        if pipeline.runtime.spec.takes_points and data[0].frame.points is None:
            data = WithScan(data, SCAN)
        samples = (data[i] for i in range(0, len(data) - int(skip or 0), EVERY))
        factors = [measure(pipeline(s.frame), s.truth_m) for s in samples if s.truth_m is not None]
        logs.append(np.log(factors).mean())
        print(f"{data.name}: {np.exp(logs[-1]):.3f}")
    return float(np.exp(np.mean(logs)))


def belongs_to(model: str) -> list[dict[str, Any]]:
    """The models that a mask of this one may be used with, and the hashes of their weights."""
    names = [model, *(other for other, trunk in TRUNKS.items() if trunk == model)]
    return [{"model": n, "sha256": sha256_of(WEIGHTS / f"{n}.safetensors")} for n in names]


def main(source: str, name: str, *sets: str) -> None:
    """Fit the factor, store, export, and say how far the export is from torch."""
    loaded = checkpoint.load(Path(source))
    spec = loaded.spec | {"name": name}
    if sets and spec.get("takes_points"):
        factor = factor_of(Path(source), list(sets), uncertainty_factor)
        loaded.network.doubt[-1].bias.data += 2 * math.log(factor)  # s = ln(σ²/2)
        print(f"uncertainty: x {factor:.2f}")
    elif sets:
        factor = factor_of(Path(source), list(sets), focal_factor)
        spec["focal_px"] = round(spec["focal_px"] * factor, 1)
        print(f"canonical focal length: {spec['focal_px']} px")
    if spec.get("masks"):
        spec["masks"] = belongs_to(spec["masks"][0]["model"])
    target = WEIGHTS / f"{name}.safetensors"
    checkpoint.save(target, replace(loaded, spec=spec), half=True)
    masked = [m["model"] for m in spec.get("masks", [])]
    for model in masked or [name]:
        onnx = WEIGHTS / f"{model}{MASK if masked else ''}.onnx"
        weights, mask = WEIGHTS / f"{model}.safetensors", target if masked else None
        difference = export(weights, onnx, linked=True, mask=mask)
        print(f"{onnx.name} differs from torch by at most {difference:.1e}")
    print(f"for its card, {name}.md, once it is measured: SHA-256 `{sha256_of(target)}`")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
