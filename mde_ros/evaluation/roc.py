"""How well an alarm tells attacked frames from clean ones: its ROC (numpy only).

An alarm is raised where a score is above a threshold; see defence.disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

FALSE_ALARMS = 0.01  # of the clean frames


def threshold_at(clean: Sequence[float], rate: float = FALSE_ALARMS) -> float:
    """The least of the clean scores above which at most a share `rate` of them lie.

    Of fewer than 1 / rate scores it is the largest.
    """
    ordered = np.sort(np.asarray(clean, np.float64))
    return float(ordered[len(ordered) - 1 - int(rate * len(ordered))])


def auc(clean: Sequence[float], attacked: Sequence[float]) -> float:
    """Area under the ROC: how often an attacked frame scores higher than a clean one, ties half."""
    ordered = np.sort(np.asarray(clean, np.float64))
    below, up_to = (np.searchsorted(ordered, attacked, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))


def curve(clean: Sequence[float], attacked: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Shares of false alarms and of detections (n,), from no alarm at all to always."""
    levels = np.unique(np.concatenate([clean, attacked]))[::-1]
    shares = (
        1 - np.searchsorted(np.sort(scores), levels, side="right") / len(scores)
        for scores in (clean, attacked)
    )
    false_alarms, detections = (np.append(share, 1.0) for share in shares)
    return false_alarms, detections


def detection(
    clean: Sequence[float], attacked: Sequence[float], threshold: float | None = None
) -> dict[str, Any]:
    """AUC, and detections and false alarms at a threshold; None: that of FALSE_ALARMS."""
    threshold = threshold_at(clean) if threshold is None else threshold
    return {
        "auc": auc(clean, attacked),
        "threshold": threshold,
        "detected": float(np.mean(np.asarray(attacked) > threshold)),
        "false_alarms": float(np.mean(np.asarray(clean) > threshold)),
    }
