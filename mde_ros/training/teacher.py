"""The teacher of a distillation: any depth model, asked several times about the same image.

A model of ours, a foreign ONNX file (its YAML says what it puts out) or one of Hugging Face
(hf:NAME). Of a relative one, scale and shift are unknown, in depth or in inverse depth; what it
says is aligned with the truth of each image where there is some, and only its shape counts where
there is none (losses.scale_shift_loss).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets.transforms import View
from mde_ros.frame import Frame
from mde_ros.geometry import median
from mde_ros.pipeline import DepthPipeline

# What a model puts out: metres, or depth or inverse depth of unknown scale and shift.
GIVES = ("metres", "depth", "inverse_depth")
FARTHEST = 50.0  # of the depth that stands for a relative answer; the nearest is 1
MEDIAN_M = 3.0  # of depth without scale, so that millimetres hold it
Ask = Callable[[Frame], np.ndarray]


@dataclass(frozen=True)
class Teacher:
    """A labeller: frame → depth (H, W), averaged over mirror images and five crops.

    Attributes:
        label: metres, 0 where the teacher gave no depth in one of its answers. Of a relative
            teacher a depth from 1 to FARTHEST that is right up to scale and shift.
        relative: in what they are unknown: "depth", "inverse_depth", or "" where they are not.
    """

    label: Ask
    relative: str = ""

    def __call__(self, frame: Frame) -> np.ndarray:
        return self.label(frame)

    def aligned(self, view: View) -> View:
        """The view with what a relative teacher says of it in metres, if it has truth at all.

        Scale and shift are those of least squares over the whole view (Ranftl et al., TPAMI 2022).
        """
        both = (view.truth_m > 0) & (view.teacher_m > 0)
        if not self.relative or not both.any():
            return view
        inverse = self.relative == "inverse_depth"
        said, true = view.teacher_m[both], view.truth_m[both]
        a, b = scale_and_shift(1 / said, 1 / true) if inverse else scale_and_shift(said, true)
        with np.errstate(divide="ignore"):
            metres = 1 / (a / view.teacher_m + b) if inverse else a * view.teacher_m + b
        known = (view.teacher_m > 0) & (metres > 0) & (metres < 1000)
        return replace(view, teacher_m=np.where(known, metres, 0).astype(np.float32))


def make_teacher(model: str, gives: str = "auto", affine: bool = False) -> Teacher | None:
    """The teacher of this name; None without one.

    Args:
        model: a shipped model, a .safetensors or .onnx file, or hf:NAME for one of Hugging Face.
        gives: what a model of Hugging Face puts out, one of GIVES or auto.
        affine: whether relative models are relative teachers; otherwise their shift is taken as
            0, which leaves a depth whose scale does not count.

    Raises:
        ConfigError, ModelError: when there is no such model, or it cannot be run.
    """
    if not model:
        return None
    runtime = None
    if model.startswith("hf:"):
        from mde_ros.training.hugging_face import HuggingFace

        runtime = HuggingFace(os.path.expandvars(model[3:]), gives)
    elif gives != "auto":
        raise ConfigError(f"teacher_gives: expected auto for {model}, whose description tells it")
    model = os.path.expandvars(model)
    settings = PipelineSettings(model=model, min_depth=0.05, max_depth=60.0, threads=0)
    pipeline = DepthPipeline(settings, runtime)
    spec = pipeline.runtime.spec
    if spec.metric:
        return Teacher(metric(pipeline))
    pipeline.settings = replace(settings, min_depth=0.0, max_depth=1000.0)
    if affine:
        return Teacher(relative(pipeline), spec.output)
    return Teacher(at_median(metric(pipeline)))


def metric(pipeline: DepthPipeline) -> Ask:
    """Metres, averaged as logarithms."""

    def ask(frame: Frame) -> np.ndarray:
        depth = pipeline(frame).depth
        return np.log(np.where(depth > 0, depth, np.nan))

    def fit(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        apart = whole - part
        known = np.isfinite(apart)
        return part + (np.median(apart[known]) if known.any() else 0)

    return lambda frame: np.nan_to_num(np.exp(averaged(ask, fit, frame)))


def at_median(ask: Ask) -> Ask:
    """The same depth on a scale on which that of every image has a median of MEDIAN_M."""

    def label(frame: Frame) -> np.ndarray:
        depth = ask(frame)
        known = depth[depth > 0]
        return depth * np.float32(MEDIAN_M / median(known)) if known.size else depth

    return label


def relative(pipeline: DepthPipeline) -> Ask:
    """Depth from 1 to FARTHEST, averaged in what the network puts out; that is affine in it."""
    inverse = pipeline.runtime.spec.output == "inverse_depth"

    def ask(frame: Frame) -> np.ndarray:
        optics = pipeline.optics(frame.camera)
        image, sparse = pipeline.prepare(frame, optics)
        value = pipeline.runtime(image, optics.network.focal_px, sparse)["depth"]
        # A runtime gives depth: the inverse of what the network puts out, NaN where that is 0.
        value = np.nan_to_num(1 / value if inverse else value)
        size = (frame.camera.width, frame.camera.height)
        return cv2.resize(value, size, interpolation=cv2.INTER_LINEAR)

    def fit(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        a, b = scale_and_shift(part, whole)
        return a * part + b

    def label(frame: Frame) -> np.ndarray:
        value = averaged(ask, fit, frame)
        unit = (value - value.min()) / max(float(np.ptp(value)), 1e-9)
        if inverse:
            return 1 / (1 / FARTHEST + (1 - 1 / FARTHEST) * unit)
        return 1 + (FARTHEST - 1) * unit

    return label


def scale_and_shift(values: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """a and b of the least squares of a · values + b - target; a is 0 where values are all one."""
    centred = values.ravel().astype(np.float64) - values.mean(dtype=np.float64)
    spread = centred @ centred
    a = float(centred @ target.ravel().astype(np.float64) / spread) if spread > 1e-12 else 0.0
    return a, float(target.mean(dtype=np.float64) - a * values.mean(dtype=np.float64))


def averaged(
    ask: Ask, fit: Callable[[np.ndarray, np.ndarray], np.ndarray], frame: Frame
) -> np.ndarray:
    """The mean of a teacher's answers about a frame, its mirror image and its four corners.

    Args:
        ask: frame → answer (H, W).
        fit: (a corner, what the whole says there) → the corner on the scale of the whole. A crop
            sharpens the shape; the scale is the whole image's.
    """
    c = frame.camera
    mirrored = Frame(np.ascontiguousarray(frame.image[:, ::-1]), c)
    whole = (ask(frame) + ask(mirrored)[:, ::-1]) / 2
    total, count = 2 * whole, np.full(whole.shape, 2.0, np.float32)
    width, height = int(c.width * 0.8), int(c.height * 0.8)
    for left in (0, c.width - width):
        for top in (0, c.height - height):
            window = np.s_[top : top + height, left : left + width]
            image = np.ascontiguousarray(frame.image[window])
            part = ask(Frame(image, c.cropped(left, top, width, height)))
            total[window] += fit(part, whole[window])
            count[window] += 1
    return total / count
