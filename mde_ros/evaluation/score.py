"""Scorer: depth maps of one model over a data set, one frame at a time, in constant memory.

Offline evaluation and the demo (depth recorded from the node) use the same scorer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mde_ros.evaluation.measure import (
    BANDS_M,
    EDGE_THRESHOLDS,
    STRIPS,
    Measured,
    Pool,
    ScoreSettings,
    measure,
)
from mde_ros.frame import Prediction
from mde_ros.metrics import RULES, Aggregate

LARGEST_GAP_NS = 1_000_000_000  # frames farther apart are no neighbours in time
# Of Measured, what only some frames have.
PARTS = ("static", "dynamic", "static_scaled", "dynamic_scaled", "uncertainty")


class Scorer:
    """Metrics of one model over a data set; frames come in the order of time.

    Args:
        settings: what counts.
    """

    def __init__(self, settings: ScoreSettings | None = None) -> None:
        self.settings = settings or ScoreSettings()
        self.images: list[dict[str, Any]] = []
        self._pool = Pool()
        self._totals = {f"{kind} {r}": Aggregate(r) for kind in ("given", "scaled") for r in RULES}
        others = (*PARTS, "temporal", *map(_edge, EDGE_THRESHOLDS))
        self._totals.update({name: Aggregate("mean") for name in others})
        self._previous: tuple[int, np.ndarray, float] | None = None

    def add(
        self, name: str, prediction_m: np.ndarray, truth_m: np.ndarray, stamp_ns: int = 0
    ) -> dict[str, Any]:
        """Measure and take in one frame; both maps (H, W) in metres. Returns and raises as below.

        Raises:
            ValueError: when the shapes differ.
        """
        measured = measure(Prediction(prediction_m), truth_m, self.settings, name=name)
        return self.take(name, measured, stamp_ns)

    def take(self, name: str, measured: Measured, stamp_ns: int = 0) -> dict[str, Any]:
        """Take in what was measured of the next frame.

        Returns:
            The frame's own numbers; those of depth_metrics are absent when no pixel counts.
        """
        for rule in RULES:
            self._totals[f"given {rule}"].add(measured.metric)
            self._totals[f"scaled {rule}"].add(measured.scaled)
        for threshold, values in measured.edges.items():
            self._totals[_edge(threshold)].add(values)
        for part in PARTS:
            if values := getattr(measured, part):
                self._totals[part].add(values)
        if measured.metric["pixels"]:
            self._pool.sums += measured.pool
            self._add_time(measured, stamp_ns)
        values = {k: v for k, v in measured.metric.items() if k != "pixels"}
        pixels = int(measured.metric["pixels"])
        image = {"name": name, **values, "scale": measured.scale, "pixels": pixels}
        self.images.append(image)
        return image

    def follow(self, measured: Measured, stamp_ns: int) -> None:
        """Let a frame that is in the sums already be the one before the next."""
        self._previous = (stamp_ns, measured.log_error, measured.scale)

    def state(self) -> dict[str, Any]:
        """All sums as plain values that JSON keeps to the last bit."""
        return {
            "images": self.images,
            "pool": self._pool.sums.ravel().tolist(),
            "totals": {name: total.state() for name, total in self._totals.items()},
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the state of another scorer, whose frames come after those of this one."""
        self.images += state["images"]
        self._pool.sums += np.reshape(state["pool"], self._pool.sums.shape)
        for name, total in self._totals.items():
            total.merge(state["totals"][name])
        self._previous = None

    def result(self) -> dict[str, Any]:
        """All numbers: the entry of one model in results.json, without its name and weights."""
        rule, total = self.settings.aggregation, self._totals
        strips = [
            {"from_row": i / STRIPS, "to_row": (i + 1) / STRIPS, **entry}
            for i, entry in enumerate(self._pool.result(1))
        ]
        bands = [
            {"from_m": low, "to_m": high, **entry}
            for low, high, entry in zip(BANDS_M, BANDS_M[1:], self._pool.result(0)[1:])
            if entry["pixels"]
        ]
        away, near = self._pool.result(2)
        scales = np.array([i["scale"] for i in self.images if i["pixels"]])
        return {
            "metrics": total[f"given {rule}"].result(),
            "median_scaled": total[f"scaled {rule}"].result(),
            "aggregation": rule,
            "by_rule": {
                r: {
                    "metrics": total[f"given {r}"].result(),
                    "median_scaled": total[f"scaled {r}"].result(),
                }
                for r in RULES
            },
            **{name: total[name].result() for name in PARTS if total[name].images},
            "edges": {str(thr): total[_edge(thr)].result() for thr in EDGE_THRESHOLDS},
            "by_distance": bands,
            "by_row": strips,
            "at_depth_edges": near,
            "away_from_edges": away,
            "temporal": {
                "pairs": total["temporal"].images,
                "flicker": None,
                "scale_step": None,
                **total["temporal"].result(),
                "scale_spread": float(np.std(np.log(scales))) if scales.size else None,
            },
            "per_image": self.images,
        }

    def _add_time(self, measured: Measured, stamp_ns: int) -> None:
        before = self._previous
        self.follow(measured, stamp_ns)
        if before is None or before[1].shape != measured.log_error.shape:
            return
        if not 0 <= stamp_ns - before[0] <= LARGEST_GAP_NS:
            return
        change = np.abs(measured.log_error - before[1])
        change = change[np.isfinite(change)]
        if change.size:
            step = abs(float(np.log(measured.scale / before[2])))
            self._totals["temporal"].add({"flicker": float(change.mean()), "scale_step": step})


def _edge(threshold: float) -> str:
    return f"edges {threshold}"
