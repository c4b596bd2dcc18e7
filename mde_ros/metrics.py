"""What depth is judged by: one definition for training, data sets, bags and reports (numpy only).

A pixel counts when its truth and its prediction are both > 0 and finite. Truth without prediction
is not held against the errors but told as `coverage`, the share of true pixels that got a depth.
Sources: Eigen et al. 2014; for the edges and the rule "image" Hu et al. 2019 (Revisiting Single
Image Depth Estimation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

RULES = ("image", "mean", "pixel")
NAMES = (
    "rmse_m", "mae_m", "abs_rel", "log10", "delta1", "delta2", "delta3", "sq_rel", "rmse_log",
)  # fmt: skip
DELTAS = (1.25, 1.25**2, 1.25**3)
BLOCK = 8192  # pixels at a time: they stay in the cache, and a BLAS does not start its threads
EDGE_NAMES = ("edge_precision", "edge_recall", "edge_f1")


def is_measured(depth_m: np.ndarray) -> np.ndarray:
    """Where a depth map holds a depth: > 0 and finite. (H, W) bool."""
    with np.errstate(invalid="ignore"):
        return (depth_m > 0) & np.isfinite(depth_m)


def depth_metrics(
    prediction_m: np.ndarray,
    truth_m: np.ndarray,
    depth_range: tuple[float, float] | None = None,
    strict: bool = False,
    mask: np.ndarray | None = None,
) -> dict[str, float]:
    """Errors and accuracies of one depth map.

    Args:
        prediction_m, truth_m: arrays of one shape, metres; 0 or not finite is no depth.
        depth_range: (min, max) metres; truth outside does not count, predictions are clamped.
        strict: count delta with < (Monodepth2) and not with <= (the default).
        mask: bool of the same shape; only pixels inside count.

    Returns:
        All of NAMES (absent when no pixel counts), `pixels`, their number, and `coverage`.
        rmse_m, mae_m and sq_rel are metres, log10 and rmse_log logarithms (base 10, e), abs_rel,
        coverage and delta fractions.

    Raises:
        ValueError: when the shapes differ.
    """
    truth, prediction = _pair(prediction_m, truth_m)
    wanted = is_measured(truth)
    if depth_range is not None:
        wanted &= (truth >= depth_range[0]) & (truth <= depth_range[1])
    if mask is not None:
        wanted &= mask
    valid = wanted & is_measured(prediction)
    out = {"pixels": float(np.count_nonzero(valid)), "coverage": 0.0}
    if out["pixels"]:
        out["coverage"] = out["pixels"] / np.count_nonzero(wanted)
        out.update(pixel_metrics(prediction[valid], truth[valid], depth_range, strict))
    return out


def pixel_metrics(
    prediction_m: np.ndarray,
    truth_m: np.ndarray,
    depth_range: tuple[float, float] | None = None,
    strict: bool = False,
    scale: float = 1.0,
) -> dict[str, float]:
    """NAMES of depth_metrics over pixels (n,) that all count, n > 0; predictions times `scale`."""
    sums = np.zeros(len(NAMES))
    for start in range(0, truth_m.size, BLOCK):
        p = prediction_m[start : start + BLOCK].astype(np.float64) * scale
        t = truth_m[start : start + BLOCK].astype(np.float64)
        if depth_range is not None:
            p = p.clip(*depth_range)
        ratio = p / t
        relative, log_ratio = np.abs(ratio - 1), np.log(ratio)
        size, worst = relative * t, np.maximum(ratio, 1 / ratio)
        sums += (
            size @ size,
            size.sum(),
            relative.sum(),
            np.abs(log_ratio).sum(),
            *(np.count_nonzero(worst < d if strict else worst <= d) for d in DELTAS),
            relative @ size,
            log_ratio @ log_ratio,
        )
    out = dict(zip(NAMES, (sums / truth_m.size).tolist()))
    out["log10"] /= np.log(10)
    for name in ("rmse_m", "rmse_log"):
        out[name] **= 0.5
    return out


def sobel_magnitude(depth_m: np.ndarray) -> np.ndarray:
    """Length of the unnormalised Sobel gradient, without the border: (H - 2, W - 2)."""
    d = np.asarray(depth_m, np.float32)
    rows = d[:-2] + 2 * d[1:-1] + d[2:]
    cols = d[:, :-2] + 2 * d[:, 1:-1] + d[:, 2:]
    across, down = rows[:, 2:] - rows[:, :-2], cols[2:] - cols[:-2]
    return np.sqrt(across * across + down * down)


def neighbourhood_valid(valid: np.ndarray) -> np.ndarray:
    """Where all 3 x 3 pixels are valid, without the border: (H - 2, W - 2) bool."""
    rows = valid[:-2] & valid[1:-1] & valid[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


def edge_metrics(
    prediction_m: np.ndarray, truth_m: np.ndarray, threshold: float = 0.25
) -> dict[str, float]:
    """Precision, recall and F1 of depth edges: pixels whose Sobel magnitude exceeds a threshold.

    Only pixels whose 3 x 3 neighbourhood is valid in both maps count, so that a hole or the image
    border is no edge. Thresholds in use: 0.25, 0.5 and 1 (Hu et al. 2019). Two maps without any
    edge agree: all three are 1. Without a pixel that counts the result is empty.
    """
    truth, prediction = _pair(prediction_m, truth_m)
    slopes = edge_slopes(prediction, truth)
    return edge_scores(*slopes, threshold)


def edge_slopes(prediction_m: np.ndarray, truth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel magnitudes (n,) of prediction and truth at the pixels that count for their edges."""
    valid = is_measured(truth_m) & is_measured(prediction_m)
    counts = neighbourhood_valid(valid)
    with np.errstate(invalid="ignore"):
        return sobel_magnitude(prediction_m)[counts], sobel_magnitude(truth_m)[counts]


def edge_scores(found: np.ndarray, there: np.ndarray, threshold: float) -> dict[str, float]:
    """EDGE_NAMES of the magnitudes that edge_slopes gives."""
    if not found.size:
        return {}
    is_found, is_there = found > threshold, there > threshold
    n_found, n_there = np.count_nonzero(is_found), np.count_nonzero(is_there)
    n_both = np.count_nonzero(is_found & is_there)
    if not n_found and not n_there:
        return dict.fromkeys(EDGE_NAMES, 1.0)
    return {
        "edge_precision": n_both / n_found if n_found else 0.0,
        "edge_recall": n_both / n_there if n_there else 0.0,
        "edge_f1": 2 * n_both / (n_found + n_there),
    }


def uncertainty_metrics(
    sigma_m: np.ndarray, prediction_m: np.ndarray, truth_m: np.ndarray
) -> dict[str, float]:
    """How far a model's own standard deviations (n,) can be trusted, all in metres.

    Sparsification leaves out the pixels of the largest deviation, 2 % after 2 %, and asks for the
    mean relative error of the rest (Ilg et al. 2018; Poggi et al. 2020, On the Uncertainty of
    Self-supervised Monocular Depth Estimation).

    Returns:
        within_1_sigma, within_2_sigma: share of the errors; 0.68 and 0.95 if honest and Gaussian.
        ause: area between this sparsification and that by the errors themselves; 0 is perfect.
        aurg: area between leaving out at random and this one; above 0 the deviations help.
        Empty without a positive deviation.
    """
    known = is_measured(sigma_m)
    if not known.any():
        return {}
    sigma, error = sigma_m[known], np.abs(prediction_m - truth_m)[known]
    relative = error / truth_m[known]
    kept = -(-sigma.size * np.arange(50, 0, -1) // 50)  # of the pixels, rounded up
    by_sigma, best = (
        (np.cumsum(relative[np.argsort(key)], dtype=np.float64)[kept - 1] / kept).mean()
        for key in (sigma, relative)
    )
    return {
        "within_1_sigma": float((error <= sigma).mean()),
        "within_2_sigma": float((error <= 2 * sigma).mean()),
        "ause": float(by_sigma - best),
        "aurg": float(relative.mean(dtype=np.float64) - by_sigma),
    }


class Aggregate:
    """Mean of per-image metrics over a data set, by one of three rules found in the literature.

    * "image": mean over images; root mean squares are the root of the mean square (Hu et al. 2019).
    * "mean": plain mean over images, root mean squares included (Monodepth2, Hu et al. 2021).
    * "pixel": as "mean", weighted by each image's valid pixels (Lifelong-MonoDepth).

    Numbers made by different rules must not be compared. Images without a valid pixel are left out
    of the means but not of `coverage`, which is always the plain mean.

    Raises:
        ValueError: on a rule that is none of these.
    """

    def __init__(self, rule: str = "image") -> None:
        if rule not in RULES:
            raise ValueError(f"aggregation: expected one of {', '.join(RULES)}, got {rule!r}")
        self.rule = rule
        self.images = 0
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Take in one image: the result of depth_metrics, edge_metrics or both together."""
        self.images += 1
        weight = values.get("pixels", 1.0) if self.rule == "pixel" else 1.0
        for name, value in values.items():
            if name == "pixels":
                continue
            w = 1.0 if name == "coverage" else weight
            value = value * value if self._is_square(name) else value
            self._sums[name] = self._sums.get(name, 0.0) + w * value
            self._weights[name] = self._weights.get(name, 0.0) + w

    def result(self) -> dict[str, float]:
        """The means so far; empty when nothing was added."""
        means = {k: self._sums[k] / w for k, w in self._weights.items() if w > 0}
        return {k: float(np.sqrt(v)) if self._is_square(k) else v for k, v in means.items()}

    def state(self) -> dict[str, Any]:
        """The sums as plain values."""
        return {"images": self.images, "sums": self._sums, "weights": self._weights}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the images that another one of the same rule has taken in, as its state tells."""
        self.images += state["images"]
        for mine, others in ((self._sums, state["sums"]), (self._weights, state["weights"])):
            for name, value in others.items():
                mine[name] = mine.get(name, 0.0) + value

    def _is_square(self, name: str) -> bool:
        return self.rule == "image" and name.startswith("rmse")


def aggregate(images: Iterable[Mapping[str, float]], rule: str = "image") -> dict[str, float]:
    """The means over many images' metrics; see Aggregate."""
    total = Aggregate(rule)
    for values in images:
        total.add(values)
    return total.result()


def _pair(prediction_m: np.ndarray, truth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth_m), np.asarray(prediction_m)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"metrics: expected prediction and truth of one shape, got {prediction.shape} and"
            f" {truth.shape}"
        )
    return truth, prediction
