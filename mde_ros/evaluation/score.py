"""Scorer: depth maps of one model against truth, one frame at a time, in constant memory.

Offline evaluation and the demo (depth recorded from the node) use the same scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mde_ros.config import ConfigError, check, setting
from mde_ros.geometry import median_scale
from mde_ros.metrics import (
    RULES,
    Aggregate,
    depth_metrics,
    edge_scores,
    edge_slopes,
    is_measured,
    neighbourhood_valid,
    sobel_magnitude,
)

# Rows and columns that count, as fractions of the image's height and width.
CROPS = {
    "none": (0.0, 1.0, 0.0, 1.0),
    "nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),  # Eigen et al. 2014, on NYU-v2
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # the same, on KITTI
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016, on KITTI
}
BANDS_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 80.0, 200.0)
EDGE_PIXELS = 304 * 228
EDGE_THRESHOLDS = (0.25, 0.5, 1.0)
STRIPS = 12
LARGEST_GAP_NS = 1_000_000_000  # frames farther apart are no neighbours in time


@dataclass(frozen=True)
class ScoreSettings:
    """What counts in a score."""

    aggregation: str = setting(
        "image", "how images are averaged (see metrics.Aggregate)", choices=RULES
    )
    crop: str = setting("none", "part of the image that counts", choices=tuple(CROPS))
    depth_range: tuple[float, float] | None = setting(
        None, "metres; truth outside does not count and predictions are clamped"
    )
    strict: bool = setting(False, "count delta with < and not with <=")
    edge_threshold: float = setting(0.25, "Sobel magnitude of a depth edge", low=0.0)

    def __post_init__(self) -> None:
        check(self)
        if self.depth_range is not None and not 0 <= self.depth_range[0] < self.depth_range[1]:
            raise ConfigError(
                f"depth_range: expected 0 <= min < max in metres, got {self.depth_range}"
            )


def crop_mask(height: int, width: int, crop: str) -> np.ndarray:
    """Which pixels of an image count under a crop of CROPS: (H, W) bool."""
    top, bottom, left, right = CROPS[crop]
    mask = np.zeros((height, width), bool)
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def counted(truth_m: np.ndarray, settings: ScoreSettings) -> np.ndarray:
    """Which pixels have a truth that counts: measured, in the crop, in the range. (H, W) bool."""
    height, width = truth_m.shape
    mask = is_measured(truth_m) & crop_mask(height, width, settings.crop)
    if settings.depth_range is not None:
        low, high = settings.depth_range
        mask &= (truth_m >= low) & (truth_m <= high)
    return mask


class Pool:
    """Errors of all pixels of all frames, sorted into bins along several axes.

    Args:
        shape: bins along each axis.
    """

    SUMS = ("pixels", "bias_m", "mae_m", "rmse_m", "abs_rel", "delta1")

    def __init__(self, *shape: int) -> None:
        self._sums = np.zeros((len(self.SUMS), *shape))

    def add(self, bins: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> None:
        """Add pixels: their bins along every axis, and errors as `pixel_values` makes them."""
        shape = self._sums.shape[1:]
        flat, n = np.ravel_multi_index(tuple(bins), shape), int(np.prod(shape))
        self._sums[0] += np.bincount(flat, minlength=n).reshape(shape)
        for total, value in zip(self._sums[1:], values):
            total += np.bincount(flat, value, minlength=n).reshape(shape)

    def result(self, axis: int) -> list[dict[str, float]]:
        """One entry per bin of an axis: `pixels` and, where there are any, means of errors."""
        others = tuple(i + 1 for i in range(self._sums.ndim - 1) if i != axis)
        out = []
        for column in self._sums.sum(others).T:
            entry: dict[str, float] = {"pixels": int(column[0])}
            if column[0]:
                entry.update(zip(self.SUMS[1:], (column[1:] / column[0]).tolist()))
                entry["rmse_m"] = entry["rmse_m"] ** 0.5
            out.append(entry)
        return out


def pixel_values(p: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """What Pool sums, per pixel: error, |error|, error², |error| / truth, whether within 1.25."""
    error = p - t
    size = np.abs(error)
    return error, size, error * error, size / t, np.maximum(p / t, t / p) <= 1.25


def at_edge_size(depth_m: np.ndarray) -> np.ndarray:
    """Depth (H, W) sampled down to EDGE_PIXELS pixels, the nearest ones; smaller maps stay.

    A Sobel threshold belongs to a size of pixels. The published thresholds belong to 304x228
    (METHODS 1), so edges of every camera are taken there.
    """
    height, width = depth_m.shape
    factor = (EDGE_PIXELS / (width * height)) ** 0.5
    if factor >= 1:
        return depth_m
    size = (round(width * factor), round(height * factor))
    return cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)


class Scorer:
    """Metrics of one model over a data set; `add` takes frames in the order of time.

    Args:
        settings: what counts.
    """

    def __init__(self, settings: ScoreSettings | None = None) -> None:
        self.settings = settings or ScoreSettings()
        self.images: list[dict[str, Any]] = []
        self._metric = {rule: Aggregate(rule) for rule in RULES}
        self._scaled = {rule: Aggregate(rule) for rule in RULES}
        self._edges = {thr: Aggregate("mean") for thr in EDGE_THRESHOLDS}
        self._pool = Pool(len(BANDS_M) + 1, STRIPS, 2)  # distance, row, at a depth edge
        self._previous: tuple[int, np.ndarray, float] | None = None
        self._flicker: list[float] = []
        self._scale_steps: list[float] = []

    def add(
        self, name: str, prediction_m: np.ndarray, truth_m: np.ndarray, stamp_ns: int = 0
    ) -> dict[str, Any]:
        """Score one frame; both maps (H, W) in metres.

        Returns:
            The frame's own numbers; those of depth_metrics are absent when no pixel counts.

        Raises:
            ValueError: when the shapes differ.
        """
        if prediction_m.shape != truth_m.shape:
            raise ValueError(
                f"{name}: depth is {_size(prediction_m)} but its truth is {_size(truth_m)}"
            )
        counts = counted(truth_m, self.settings)
        truth = np.where(counts, truth_m, 0).astype(np.float32)
        given = is_measured(prediction_m)
        predicted = np.where(given, prediction_m, 0).astype(np.float32)
        scale = median_scale(predicted, truth)

        slopes = edge_slopes(at_edge_size(predicted), at_edge_size(truth))
        metric = self._frame_metrics(predicted, truth, slopes)
        scaled = self._frame_metrics(
            predicted * np.float32(scale), truth, (slopes[0] * np.float32(scale), slopes[1])
        )
        for rule in RULES:
            self._metric[rule].add(metric)
            self._scaled[rule].add(scaled)
        for threshold, total in self._edges.items():
            total.add(edge_scores(*slopes, threshold))
        if metric["pixels"]:
            self._add_pixels(predicted, truth, counts & given)
            self._add_time(predicted, truth, counts & given, scale, stamp_ns)
        values = {k: v for k, v in metric.items() if k != "pixels"}
        image = {"name": name, **values, "scale": scale, "pixels": int(metric["pixels"])}
        self.images.append(image)
        return image

    def result(self) -> dict[str, Any]:
        """All numbers: the entry of one model in results.json, without its name and weights."""
        rule = self.settings.aggregation
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
            "metrics": self._metric[rule].result(),
            "median_scaled": self._scaled[rule].result(),
            "aggregation": rule,
            "by_rule": {
                r: {"metrics": self._metric[r].result(), "median_scaled": self._scaled[r].result()}
                for r in RULES
            },
            "edges": {str(thr): total.result() for thr, total in self._edges.items()},
            "by_distance": bands,
            "by_row": strips,
            "at_depth_edges": near,
            "away_from_edges": away,
            "temporal": {
                "pairs": len(self._flicker),
                "flicker": float(np.mean(self._flicker)) if self._flicker else None,
                "scale_step": float(np.mean(self._scale_steps)) if self._scale_steps else None,
                "scale_spread": float(np.std(np.log(scales))) if scales.size else None,
            },
            "per_image": self.images,
        }

    def _frame_metrics(
        self, predicted: np.ndarray, truth: np.ndarray, slopes: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, float]:
        s = self.settings
        values = depth_metrics(predicted, truth, s.depth_range, s.strict)
        return {**values, **edge_scores(*slopes, s.edge_threshold)}

    def _add_pixels(self, predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
        p, t = predicted[valid], truth[valid]
        edge = np.zeros(truth.shape, np.uint8)
        whole = neighbourhood_valid(truth > 0)
        edge[1:-1, 1:-1] = whole & (sobel_magnitude(truth) > self.settings.edge_threshold)
        near = cv2.dilate(edge, np.ones((3, 3), np.uint8))[valid]
        band = np.searchsorted(BANDS_M, t, side="right")
        strip = np.nonzero(valid)[0] * STRIPS // truth.shape[0]
        self._pool.add((band, strip, near), pixel_values(p, t))

    def _add_time(
        self,
        predicted: np.ndarray,
        truth: np.ndarray,
        valid: np.ndarray,
        scale: float,
        stamp_ns: int,
    ) -> None:
        error = np.full(truth.shape, np.nan, np.float32)
        error[valid] = np.log(predicted[valid] / truth[valid])
        before, self._previous = self._previous, (stamp_ns, error, scale)
        if before is None or before[1].shape != error.shape:
            return
        if not 0 <= stamp_ns - before[0] <= LARGEST_GAP_NS:
            return
        change = np.abs(error - before[1])
        change = change[np.isfinite(change)]
        if change.size:
            self._flicker.append(float(change.mean()))
            self._scale_steps.append(abs(float(np.log(scale / before[2]))))


def _size(depth: np.ndarray) -> str:
    return "x".join(map(str, depth.shape[::-1]))
