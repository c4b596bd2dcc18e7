"""A depth pipeline that is open between normalisation and network, and gives gradients there.

What comes before (undistortion, resizing, projection) and after it (resizing, range check) is the
deployed pipeline's own, so that numbers made through it are those of the robot.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mde_ros import checkpoint
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.evaluation.measure import counted, measure
from mde_ros.evaluation.pictures import rectified_truth
from mde_ros.evaluation.results import EvaluationError
from mde_ros.evaluation.run import EvaluateSettings, Tally
from mde_ros.frame import Frame, Prediction
from mde_ros.model import DepthModel
from mde_ros.networks.folding import folded
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import ModelSpec, check_mask, find_mask, find_model, read_spec


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame as the network sees it.

    Attributes:
        x: (1, 3, h, w) normalised image.
        focal_px: (1,) focal length in pixels of x.
        sparse_m: (1, 1, h, w) metres, 0 = none, of a completion network.
        optics: of DepthPipeline.optics.
    """

    x: Tensor
    focal_px: Tensor
    sparse_m: Tensor | None
    optics: Any


class OpenPipeline:
    """A checkpoint in its pipeline; its weights take no gradients, its input does.

    Args:
        settings: those of the pipeline; the network runs in torch whatever `runtime` says.

    Raises:
        runtime.ModelError: when the model cannot be found or read.
        ConfigError: when it is no checkpoint.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        path = find_model(settings.model, ".safetensors")
        if path.suffix != ".safetensors":
            raise ConfigError(
                f"model: expected a checkpoint (.safetensors), for only torch has gradients, got"
                f" {path.name}"
            )
        self.pipeline = DepthPipeline(replace(settings, model=str(path), runtime="torch"))
        self.spec, self.device = self.pipeline.runtime.spec, self.pipeline.runtime.device
        self.sha256 = self.pipeline.runtime.sha256
        self.name = self.spec.name or path.stem
        network = folded(checkpoint.load(path).network)
        self.model = DepthModel(network, self.spec.focal_px).eval().requires_grad_(False)
        self.model.to(self.device)

    def see(self, frame: Frame) -> Seen:
        """The network's input of a frame."""
        optics = self.pipeline.optics(frame.camera)
        image, sparse = self.pipeline.prepare(frame, optics)
        focal_px = torch.tensor([optics.network.focal_px], dtype=torch.float32, device=self.device)
        sparse_m = None if sparse is None else torch.from_numpy(sparse)[None, None].to(self.device)
        x = self.model.normalise(torch.from_numpy(image)[None].to(self.device))
        return Seen(x, focal_px, sparse_m, optics)

    def depth(self, seen: Seen, x: Tensor) -> Tensor:
        """Metres (N, 1, h', w') of images (N, 3, h, w) in the place of a frame's own."""
        sparse_m = seen.sparse_m
        if sparse_m is not None:
            sparse_m = sparse_m.expand(len(x), -1, -1, -1)
        return self.model.metres(x, seen.focal_px.expand(len(x)), sparse_m)["depth"]

    def prediction(self, seen: Seen, depth: Tensor) -> Prediction:
        """What the pipeline makes of the network's depth (h', w')."""
        return self.pipeline.finish({"depth": depth.detach().cpu().numpy()}, seen.optics)


def load_mask(mask: str, n: OpenPipeline) -> tuple[nn.Module, Path, ModelSpec]:
    """A mask network of a depth network, on its device and without gradients; its file and spec.

    Args:
        mask: "auto" (the one beside the model, or shipped) or a checkpoint.

    Raises:
        ModelError: when there is none, or it was trained for other weights.
        CheckpointError: when it cannot be read.
    """
    runtime = n.pipeline.runtime
    path = find_mask(mask, runtime)
    spec = read_spec(path)
    check_mask(path, spec.masks, runtime.path.name, runtime.weights_sha256)
    network = folded(checkpoint.load(path).network).requires_grad_(False)
    return network.to(n.device), path, spec


def target_of(datasets: Iterable[Any], frames: EvaluateSettings, wanted: str = "auto") -> str:
    """ "truth" or "prediction"; auto is decided by whether any frame that is taken has truth."""
    if wanted != "auto":
        return wanted
    for dataset in datasets:
        for index in frames.indices(len(dataset)):
            try:
                truth_m = dataset[index].truth_m
            except (ValueError, OSError):
                continue  # told when its turn comes
            if truth_m is not None and counted(truth_m, frames.score).any():
                return "truth"
    return "prediction"


@dataclass(frozen=True, eq=False)
class Known:
    """A frame that can be scored.

    Attributes:
        index: in its data set.
        truth_m: (H, W) metres, 0 = none; N's own depth of the clean image where that is the target.
    """

    index: int
    sample: Any
    seen: Seen
    truth_m: np.ndarray


def know(n: OpenPipeline, sample: Any, index: int, target: str) -> Known | None:
    """A sample with what it is scored against; None without truth.

    Args:
        target: "truth" or "prediction", of target_of.
    """
    seen = n.see(sample.frame)
    if target == "truth":
        truth_m = rectified_truth(sample)
    else:
        with torch.no_grad():
            truth_m = n.prediction(seen, n.depth(seen, seen.x)[0, 0]).depth
    return None if truth_m is None else Known(index, sample, seen, truth_m)


def scored_frames(
    dataset: Any,
    n: OpenPipeline,
    frames: EvaluateSettings,
    target: str,
    tally: Tally,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> Iterator[Known]:
    """The frames that `tally` does not have yet and that can be scored, which it counts.

    A frame that cannot be read, or has nothing to be scored against, is counted and left out.

    Args:
        target: "truth" or "prediction", of target_of.
        progress: called with (frames begun, frames in all).
        stop: asked before every frame.

    Raises:
        EvaluationError: when a truth is of another size than its image.
    """
    indices = frames.indices(len(dataset))
    tally.length, tally.frames = len(dataset), len(indices)
    for index in indices[tally.begun :]:
        if stop():
            return
        progress(tally.begun, len(indices))
        started = time.monotonic()
        tally.begun += 1
        try:
            known = know(n, dataset[index], index, target)
        except EvaluationError:
            raise
        except (ValueError, OSError) as error:
            tally.drop("unreadable", str(error))
            continue
        if known is None or not counted(known.truth_m, frames.score).any():
            tally.drop("no truth")
            continue
        frame, digest = known.sample.frame, hashlib.sha256(tally.sha256.encode())
        for array in (frame.image, frame.camera.K, frame.camera.D, known.truth_m):
            digest.update(np.ascontiguousarray(array).data)
        tally.sha256 = digest.hexdigest()
        yield known
        tally.seconds += time.monotonic() - started


def take(tally: Tally, n: OpenPipeline, name: str, depth: Tensor, known: Known) -> dict[str, Any]:
    """Score the network's depth (h', w') of a frame under a name; returns the frame's numbers."""
    scorer, frame = tally.scorers[name], known.sample.frame
    prediction = n.prediction(known.seen, depth)
    measured = measure(prediction, known.truth_m, scorer.settings, name=known.sample.name)
    image = scorer.take(known.sample.name, measured, frame.stamp_ns)
    image["index"] = known.index
    return image


def show(picture: Tensor, model: DepthModel) -> Any:
    """A normalised image (3, h, w) as (h, w, 3) uint8 RGB."""
    unit = picture[None] * model.std + model.mean
    grey = (unit * 255).round().clamp(0, 255).byte()
    return grey[0].permute(1, 2, 0).cpu().numpy()
