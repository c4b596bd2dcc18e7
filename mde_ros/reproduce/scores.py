"""What experiments of several trainings share: a checkpoint's figures, their means, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.datasets import Dataset
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.evaluation.score import ScoreSettings
from mde_ros.pipeline import DepthPipeline
from mde_ros.reproduce.record import Record, Row

FIGURES = {"rmse_m": "RMSE, m", "abs_rel": "REL", "delta1": "δ < 1.25", "edge_f1": "F1 > 0.5"}
HIGHER = ("delta1", "edge_f1")  # is better
Runs = dict[str, list[dict[str, float]]]  # name → the figures of each seed


def score(model: Path, test: Dataset, settings: EvaluateSettings | None = None) -> dict[str, float]:
    """FIGURES of a checkpoint, without median scaling; edges are those above 0.5."""
    settings = settings or EvaluateSettings()
    settings = replace(settings, score=ScoreSettings(edge_threshold=0.5))
    pipeline = DepthPipeline(PipelineSettings(model=str(model), threads=0))
    metrics = evaluate(test, {"model": pipeline}, settings)["models"][0]["metrics"]
    return {key: metrics[key] for key in FIGURES if key in metrics}  # sparse truth has no edges


def mean(runs: Runs, name: str, key: str) -> float:
    """Over the seeds."""
    return float(np.mean([figures[key] for figures in runs[name]]))


def rows(runs: Runs, keys: Sequence[str], prefix: str = "") -> list[Row]:
    """A row of means for each name, and the spread of the REL over the seeds."""
    made = []
    for name, figures in runs.items():
        row: Row = {"name": prefix + name}
        row |= {FIGURES[key]: mean(runs, name, key) for key in keys}
        if len(figures) > 1:
            row["± REL"] = float(np.std([f["abs_rel"] for f in figures], ddof=1))
        made.append(row)
    return made


def claim_better(
    record: Record, runs: Runs, one: str, other: str, key: str, prefix: str = ""
) -> None:
    """Claim that the mean of `one` is better than that of `other`."""
    a, b = mean(runs, one, key), mean(runs, other, key)
    text = f"{prefix}{one} is better than {other} in {FIGURES[key]}"
    record.claim(text, a > b if key in HIGHER else a < b, f"{a:.3f} against {b:.3f}")
