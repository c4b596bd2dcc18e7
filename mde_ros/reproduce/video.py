"""Depth learnt from plain video, held against what needs no learning at all (METHODS 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.evaluation.measure import ScoreSettings, measure
from mde_ros.frame import Frame, Prediction
from mde_ros.metrics import Aggregate
from mde_ros.pipeline import DepthPipeline
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.scores import FIGURES, HIGHER, Runs, mean, rows
from mde_ros.training import video
from mde_ros.training.loop import LoopSettings
from mde_ros.training.triplets import VideoSource
from mde_ros.training.video import VideoSettings, published_schedule

PAPER = [
    {"name": "Monodepth2, 640x192, KITTI Eigen", "REL": 0.115, "δ < 1.25": 0.877},
    {"name": "CADepth, 640x192, KITTI Eigen", "REL": 0.105, "δ < 1.25": 0.892},
]
KEYS = ("abs_rel", "delta1")
OURS, CONSTANT, GROUND = "depth from video", "one depth everywhere", "a level road"
CLEARLY = {"delta1": 0.05, "abs_rel": 0.02}  # better by at least so much
STEPS, SIZE = 1000, (128, 64)  # of the small scale, on windows of that size
SCORE = ScoreSettings(crop="garg", depth_range=(1e-3, 80.0))
HEIGHT_M = 1.65  # of KITTI's camera above the road
FARTHEST_M = (80.0, 40.0, 20.0, 10.0, 5.0)  # of what stands on the road


def run(settings: ReproduceSettings) -> Record:
    """Train on video alone, and score depth times the median ratio on another drive."""
    record = Record(
        "video",
        "Depth from plain video",
        "Godard et al., ICCV 2019 (Monodepth2); Yan et al., 3DV 2021 (CADepth)",
        settings,
    )
    record.paper = PAPER
    # Every LiDAR return is truth, none goes in.
    test = open_dataset(settings.path("drive"), points="none")
    roads = [score(level_road(farthest_m), test) for farthest_m in FARTHEST_M]
    road = max(roads, key=lambda figures: figures["delta1"])
    runs: Runs = {CONSTANT: [score(constant, test)], GROUND: [road]}
    options = [settings_of(settings, seed) for seed in settings.seeds]
    clips = video.load(options[0])
    for seed, trained in zip(settings.seeds, options):
        console.print(f"seed {seed}", highlight=False)
        out = Path(settings.work) / "video" / f"{settings.scale}-{seed}"
        model = video.train(trained, out, clips)
        runs.setdefault(OURS, []).append(score(predictor(model), test))
    record.ours = rows(runs, KEYS)
    for rival in (CONSTANT, GROUND):
        for key in KEYS:
            judge(record, runs, rival, key)
    record.notes.append(
        "All depth is multiplied by median(truth) / median(prediction) of its image; LiDAR returns"
        " up to 80 m in the crop of Garg et al. count. Of the level road that distance"
        f" ({', '.join(f'{m:g}' for m in FARTHEST_M)} m) is taken at which it scores best on the"
        " test itself. The published figures are of another, larger test set, after training on"
        " far more video."
    )
    # Where the data lie is nobody else's concern.
    paths = ("sources", "initial", "held_out")
    record.details = {k: v for k, v in asdict(options[0]).items() if k not in paths}
    return record


def settings_of(settings: ReproduceSettings, seed: int) -> VideoSettings:
    """The training of a seed; small: the light network for minutes, full: as published."""
    sources = (VideoSource(settings.path("video")),)
    initial = settings.given("imagenet") or "imagenet"
    if settings.scale == "full":
        return VideoSettings(
            network="monodepth2_resnet18",
            pose_backbone="resnet18",
            initial=initial,
            sources=sources,
            size=(640, 192),
            smallest_crop=1.0,
            loop=published_schedule(seed),
        )
    loop = LoopSettings(
        steps=STEPS, batch=4, lr=1e-3, encoder_lr=3e-4, warmup=50, precision="32-true", seed=seed
    )
    return VideoSettings(initial=initial, sources=sources, size=SIZE, pose_lr=5e-4, loop=loop)


def score(depth_of: Callable[[Frame], np.ndarray], test: Dataset) -> dict[str, float]:
    """Figures of every frame's depth (H, W) after median scaling, mean over the frames."""
    total = Aggregate()
    for sample in test:
        if sample.truth_m is not None:
            total.add(measure(Prediction(depth_of(sample.frame)), sample.truth_m, SCORE).scaled)
    result = total.result()
    return {key: result[key] for key in KEYS}


def constant(frame: Frame) -> np.ndarray:
    """The same depth for all."""
    return np.ones(frame.image.shape[:2], np.float32)


def level_road(farthest_m: float) -> Callable[[Frame], np.ndarray]:
    """Depth of a level plane HEIGHT_M below a level camera, and never more than so much."""

    def of(frame: Frame) -> np.ndarray:
        K, camera = frame.camera.K, frame.camera
        below = np.maximum(np.arange(camera.height) - K[1, 2], 1e-6)  # the horizon, in pixels
        depth = np.minimum(HEIGHT_M * K[1, 1] / below, farthest_m).astype(np.float32)
        return np.repeat(depth[:, None], camera.width, 1)

    return of


def predictor(model: Path) -> Callable[[Frame], np.ndarray]:
    """Depth by the pipeline that a robot runs, of any scale."""
    settings = PipelineSettings(model=str(model), device="cpu", min_depth=0.0, max_depth=1000.0)
    pipeline = DepthPipeline(settings)
    return lambda frame: pipeline(frame).depth


def judge(record: Record, runs: Runs, rival: str, key: str) -> None:
    """Claim that what was learnt is clearly better."""
    ours, theirs = mean(runs, OURS, key), mean(runs, rival, key)
    gain = ours - theirs if key in HIGHER else theirs - ours
    text = f"{OURS} is better than {rival} in {FIGURES[key]} by at least {CLEARLY[key]}"
    record.claim(text, gain >= CLEARLY[key], f"{ours:.3f} against {theirs:.3f}")
