"""measure: everything that is counted of one predicted depth map, in a few milliseconds.

It depends on its frame alone, so that frames can be measured beside each other and by threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mde_ros.config import ConfigError, check, setting
from mde_ros.frame import Prediction
from mde_ros.geometry import median
from mde_ros.metrics import (
    RULES,
    edge_scores,
    edge_slopes,
    is_measured,
    neighbourhood_valid,
    pixel_metrics,
    sobel_magnitude,
    uncertainty_metrics,
)

# Rows and columns that count, as fractions of the image's height and width.
CROPS = {
    "none": (0.0, 1.0, 0.0, 1.0),
    "nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),  # Eigen et al. 2014, on NYU-v2
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # the same, on KITTI
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016, on KITTI
    "cityscapes": (0.25, 0.75, 192 / 2048, 1856 / 2048),  # METHODS 8: no sky, no bonnet
}
BANDS_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 80.0, 200.0)
EDGE_PIXELS = 304 * 228
EDGE_THRESHOLDS = (0.25, 0.5, 1.0)
STRIPS = 12
POOL_PIXELS = 20_000  # of a frame that are sorted into bins; more would tell the same


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


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of one frame, ready to be added up.

    Attributes:
        metric, scaled: of depth_metrics and edge_scores, as given and median-scaled.
        edges: edge_scores by threshold.
        static, dynamic: of depth_metrics, where it is known what moves and some pixels count.
        static_scaled, dynamic_scaled: the same, of depth times `scale`, the one of all pixels.
        uncertainty: of uncertainty_metrics, where the model tells one.
        scale: what would make the median right.
        pool: sums of Pool over the frame's pixels.
        log_error: (h, w) float32 log(predicted / true) at the size of edges, NaN = does not count.
    """

    metric: dict[str, float]
    scaled: dict[str, float]
    edges: dict[float, dict[str, float]]
    static: dict[str, float]
    dynamic: dict[str, float]
    static_scaled: dict[str, float]
    dynamic_scaled: dict[str, float]
    uncertainty: dict[str, float]
    scale: float
    pool: np.ndarray
    log_error: np.ndarray


def crop_mask(height: int, width: int, crop: str) -> np.ndarray:
    """Which pixels of an image count under a crop of CROPS: (H, W) bool."""
    top, bottom, left, right = CROPS[crop]
    mask = np.zeros((height, width), bool)
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def counted(truth_m: np.ndarray, settings: ScoreSettings) -> np.ndarray:
    """Which pixels have a truth that counts: measured, in the crop, in the range. (H, W) bool."""
    mask = is_measured(truth_m)
    if settings.crop != "none":
        height, width = truth_m.shape
        mask &= crop_mask(height, width, settings.crop)
    if settings.depth_range is not None:
        low, high = settings.depth_range
        mask &= (truth_m >= low) & (truth_m <= high)
    return mask


def at_edge_size(values: np.ndarray) -> np.ndarray:
    """A map (H, W) sampled down to EDGE_PIXELS pixels, the nearest ones; smaller maps stay.

    A Sobel threshold belongs to a size of pixels. The published thresholds belong to 304x228
    (METHODS 1), so edges of every camera are taken there.
    """
    height, width = values.shape
    factor = (EDGE_PIXELS / (width * height)) ** 0.5
    if factor >= 1:
        return values
    size = (round(width * factor), round(height * factor))
    return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)


def measure(
    prediction: Prediction,
    truth_m: np.ndarray,
    settings: ScoreSettings,
    moving: np.ndarray | None = None,
    name: str = "frame",
) -> Measured:
    """Hold one prediction against its truth.

    Metrics are taken over all pixels that count. Of more than POOL_PIXELS about as many, evenly
    spread, go into the pool and the calibration of the uncertainty.

    Args:
        prediction: depth and perhaps uncertainty, (H, W) metres.
        truth_m: (H, W) metres, 0 or not finite is no measurement.
        settings: what counts.
        moving: (H, W) bool, pixels of things that move by themselves.
        name: of the frame, for errors.

    Raises:
        ValueError: when the shapes differ.
    """
    depth_m = prediction.depth
    if depth_m.shape != truth_m.shape:
        raise ValueError(f"{name}: depth is {_size(depth_m)} but its truth is {_size(truth_m)}")
    counts, given = counted(truth_m, settings), is_measured(depth_m)
    valid = counts & given
    p = depth_m[valid].astype(np.float32, copy=False)
    t = truth_m[valid].astype(np.float32, copy=False)
    scale = median(t) / median(p) if p.size else 1.0  # as geometry.median_scale

    small_p, small_t = at_edge_size(depth_m), at_edge_size(truth_m)
    small_given, small_counts = (at_edge_size(m.view(np.uint8)) > 0 for m in (given, counts))
    small_p = np.where(small_given, small_p, 0).astype(np.float32, copy=False)
    small_t = np.where(small_counts, small_t, 0).astype(np.float32, copy=False)
    slopes = edge_slopes(small_p, small_t)

    def numbers(
        of: np.ndarray, truth: np.ndarray, wanted: int, scale: float = 1.0
    ) -> dict[str, float]:
        out = {"pixels": float(of.size), "coverage": of.size / wanted if wanted else 0.0}
        if of.size:
            out.update(pixel_metrics(of, truth, settings.depth_range, settings.strict, scale))
        return out

    wanted = int(np.count_nonzero(counts))
    metric = numbers(p, t, wanted)
    metric.update(edge_scores(*slopes, settings.edge_threshold))
    scaled = numbers(p, t, wanted, scale)
    scaled_slopes = (slopes[0] * np.float32(scale), slopes[1])
    scaled.update(edge_scores(*scaled_slopes, settings.edge_threshold))

    parts: list[dict[str, float]] = [{}, {}, {}, {}]
    if moving is not None:
        moves = moving[valid]
        for i, mask in enumerate((~moves, moves)):
            of_part = int(np.count_nonzero(counts & (moving == bool(i))))
            if of_part:
                parts[i] = numbers(p[mask], t[mask], of_part)
                parts[i + 2] = numbers(p[mask], t[mask], of_part, scale)

    step = max(1, p.size // POOL_PIXELS) | 1  # odd, so that it meets all columns
    some = np.flatnonzero(valid.ravel()[::step]) * step
    some_p, some_t = depth_m.ravel()[some], truth_m.ravel()[some]
    calibration: dict[str, float] = {}
    if prediction.uncertainty is not None and some.size:
        calibration = uncertainty_metrics(prediction.uncertainty.ravel()[some], some_p, some_t)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_error = np.log(small_p / small_t)
    log_error[~np.isfinite(log_error)] = np.nan
    return Measured(
        metric=metric,
        scaled=scaled,
        edges={threshold: edge_scores(*slopes, threshold) for threshold in EDGE_THRESHOLDS},
        static=parts[0],
        dynamic=parts[1],
        static_scaled=parts[2],
        dynamic_scaled=parts[3],
        uncertainty=calibration,
        scale=scale,
        pool=_pooled(some_p, some_t, some, truth_m.shape, small_t, settings),
        log_error=log_error,
    )


class Pool:
    """Errors of pixels, sorted by distance, image row, and away from or at a depth edge.

    Attributes:
        sums: (6, distances, rows, 2), which may be added up.
    """

    SUMS = ("pixels", "bias_m", "mae_m", "rmse_m", "abs_rel", "delta1")

    def __init__(self) -> None:
        self.sums = np.zeros((len(self.SUMS), len(BANDS_M) + 1, STRIPS, 2))

    def add(self, p: np.ndarray, t: np.ndarray, strip: np.ndarray, near: np.ndarray) -> None:
        """Add pixels (n,): predicted and true metres, the row's bin, and whether at an edge."""
        error, shape = p - t, self.sums.shape[1:]
        size = np.abs(error)
        close = np.maximum(p / t, t / p) <= 1.25
        band = np.searchsorted(np.asarray(BANDS_M, np.float32), t, side="right")
        bins = (band * STRIPS + strip) * 2 + near
        for total, value in zip(self.sums, (None, error, size, error * error, size / t, close)):
            total += np.bincount(bins, value, minlength=total.size).reshape(shape)

    def result(self, axis: int) -> list[dict[str, float]]:
        """One entry per bin of an axis: `pixels` and, where there are any, means of errors."""
        others = tuple(i + 1 for i in range(3) if i != axis)
        out = []
        for column in self.sums.sum(others).T:
            entry: dict[str, float] = {"pixels": int(column[0])}
            if column[0]:
                entry.update(zip(self.SUMS[1:], (column[1:] / column[0]).tolist()))
                entry["rmse_m"] = entry["rmse_m"] ** 0.5
            out.append(entry)
        return out


def _pooled(
    p: np.ndarray,
    t: np.ndarray,
    where: np.ndarray,
    shape: tuple[int, int],
    small_t: np.ndarray,
    settings: ScoreSettings,
) -> np.ndarray:
    """Sums of a Pool over pixels at flat indices `where` of an image of a shape."""
    edge = np.zeros(small_t.shape, np.uint8)
    steep = sobel_magnitude(small_t) > settings.edge_threshold
    edge[1:-1, 1:-1] = steep & neighbourhood_valid(small_t > 0)
    near = cv2.dilate(edge, np.ones((3, 3), np.uint8))
    rows, cols = np.divmod(where, shape[1])
    height, width = small_t.shape
    near = near[rows * height // shape[0], cols * width // shape[1]]
    pool = Pool()
    pool.add(p, t, rows * STRIPS // shape[0], near)
    return pool.sums


def _size(depth: np.ndarray) -> str:
    return "x".join(map(str, depth.shape[::-1]))
