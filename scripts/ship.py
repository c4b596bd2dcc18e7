"""Put a trained checkpoint among the shipped models.

    python scripts/ship.py CHECKPOINT NAME [SET[:SKIP_LAST] …]

Writes mde_ros/weights/NAME.safetensors (fp16) and NAME.onnx, which points into it. With data sets
(the labelled ones it was trained on, without the frames held out), the canonical focal length is
fitted so that the median of prediction / truth is 1 over them: training on log-depth with edge
terms leaves depth a few per cent too near.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mde_ros import checkpoint
from mde_ros.config import PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.export import export
from mde_ros.geometry import median_scale
from mde_ros.pipeline import DepthPipeline

WEIGHTS = Path(__file__).parent.parent / "mde_ros" / "weights"
EVERY = 10  # frames


def scale_of(model: Path, sets: list[str]) -> float:
    """Geometric mean over the sets of that of their frames' median(prediction) / median(truth)."""
    pipeline = DepthPipeline(PipelineSettings(model=str(model), device="cpu"))
    logs = []
    for entry in sets:
        path, _, skip = entry.partition(":")
        data = open_dataset(path)
        samples = (data[i] for i in range(0, len(data) - int(skip or 0), EVERY))
        scales = [median_scale(pipeline(s.frame).depth, s.truth_m) for s in samples]  # type: ignore[arg-type]
        logs.append(-np.log(scales).mean())
        print(f"{data.name}: prediction / truth {np.exp(logs[-1]):.3f}")
    return float(np.exp(np.mean(logs)))


def main(source: str, name: str, *sets: str) -> None:
    """Fit the scale, store, export, and say how far the export is from torch."""
    loaded = checkpoint.load(Path(source))
    spec = loaded.spec | {"name": name}
    if sets:
        spec["focal_px"] = round(spec["focal_px"] * scale_of(Path(source), list(sets)), 1)
        print(f"canonical focal length: {spec['focal_px']} px")
    target = WEIGHTS / f"{name}.safetensors"
    checkpoint.save(target, replace(loaded, spec=spec), half=True)
    difference = export(target, target.with_suffix(".onnx"), linked=True)
    print(f"{target.name}: ONNX differs from torch by at most {difference:.1e}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
