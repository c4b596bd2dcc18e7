"""What a line of LiDAR points is worth without any network: the scale of the whole image."""

from __future__ import annotations

import dataclasses

import numpy as np

from mde_ros.frame import Frame, Prediction
from mde_ros.geometry import median, points_to_depth
from mde_ros.metrics import is_measured
from mde_ros.pipeline import DepthPipeline


class ScanScaled:
    """A model's depth times the median of measured over predicted depth at the points' pixels.

    Where no point meets a prediction, the depth stays as it is.

    Args:
        model: a pipeline whose network does not take points.
    """

    def __init__(self, model: DepthPipeline) -> None:
        self.model, self.runtime, self.settings = model, model.runtime, model.settings

    def __call__(self, frame: Frame) -> Prediction:
        """As DepthPipeline: it predicts, and scales."""
        prediction = self.model(frame)
        if frame.points is None:
            return prediction
        scan_m = points_to_depth(frame.points, self.model.output_camera(frame.camera))
        both = (scan_m > 0) & is_measured(prediction.depth)
        if not both.any():
            return prediction
        scale = np.float32(median(scan_m[both] / prediction.depth[both]))
        sigma_m = prediction.uncertainty
        return dataclasses.replace(
            prediction,
            depth=prediction.depth * scale,
            uncertainty=None if sigma_m is None else sigma_m * scale,
        )
