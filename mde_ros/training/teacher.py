"""The teacher of a distillation: any depth model, asked several times about the same image."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.frame import Frame
from mde_ros.pipeline import DepthPipeline


def make_teacher(model: str) -> Callable[[Frame], np.ndarray] | None:
    """A labeller: frame → depth (H, W) in metres, averaged over mirror images and five crops.

    0 where the teacher gave no depth in one of its answers.
    """
    if not model:
        return None
    pipeline = DepthPipeline(
        PipelineSettings(model=os.path.expandvars(model), min_depth=0.05, max_depth=60.0)
    )

    def answer(frame: Frame) -> np.ndarray:
        depth = pipeline(frame).depth
        return np.log(np.where(depth > 0, depth, np.nan))

    def label(frame: Frame) -> np.ndarray:
        c = frame.camera
        mirrored = Frame(np.ascontiguousarray(frame.image[:, ::-1]), c)
        whole = (answer(frame) + answer(mirrored)[:, ::-1]) / 2
        total, count = 2 * whole, np.full(whole.shape, 2.0, np.float32)
        width, height = int(c.width * 0.8), int(c.height * 0.8)
        for left in (0, c.width - width):
            for top in (0, c.height - height):
                window = np.s_[top : top + height, left : left + width]
                part = Frame(
                    np.ascontiguousarray(frame.image[window]),
                    c.cropped(left, top, width, height),
                )
                said = answer(part)
                # A crop sharpens the shape; the scale is the whole image's.
                apart = whole[window] - said
                known = np.isfinite(apart)
                total[window] += said + (np.median(apart[known]) if known.any() else 0)
                count[window] += 1
        return np.nan_to_num(np.exp(total / count))

    return label
