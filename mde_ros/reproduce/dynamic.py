"""Mining supervision for dynamic regions: what stands and what moves, before and after."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mde_ros.config import PipelineSettings, load
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.measure import ScoreSettings
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.pipeline import DepthPipeline
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.simulated import scenes
from mde_ros.training import dynamic
from mde_ros.training.dynamic_scene import SceneLoss
from mde_ros.training.dynamic_settings import DynamicSettings, schedule
from mde_ros.training.loop import LoopSettings
from mde_ros.training.triplets import VideoSource

PAPER = [{"name": "no table at hand; state of the art in the dynamic regions of Cityscapes"}]
KINDS = {"drives": (32, 12), "rooms": (24, 8)}  # clips to learn from, and to be judged on
STEPS = {"scene": 450, "settle": 320, "shapes": 60, "scales": 250, "final": 120}  # small scale
PARTS = {"static_scaled": "standing", "dynamic_scaled": "moving"}
KEYS = {"abs_rel": "REL", "delta1": "δ < 1.25"}
BEFORE, AFTER = "video alone", "with mined labels"
SCORE = ScoreSettings(depth_range=(1e-3, 80.0))
CLEARLY = 0.05  # share by which the error of what moves falls
STEADY = 0.02  # share by which that of what stands may differ
Scores = dict[str, list[dict[str, float]]]  # stage → figures of each seed


def run(settings: ReproduceSettings) -> Record:
    """Stage 1 and the last stage of every seed, scored on clips that were not learnt from."""
    record = Record(
        "dynamic",
        "Depth of what moves by itself, from video",
        "Nguyen et al., CVPR 2024",
        settings,
    )
    record.paper = [dict(row) for row in PAPER]
    small = settings.scale == "small"
    for kind in KINDS if small else ("cityscapes",):
        scores: Scores = {}
        for seed in settings.seeds:
            console.print(f"{kind}, seed {seed}", highlight=False)
            options, test = simulated(settings, kind) if small else cityscapes(settings)
            options = seeded(options, seed)
            out = Path(settings.work) / "dynamic" / f"{settings.scale}-{kind}-{seed}"
            last = dynamic.train(options, out)
            for name, model in ((BEFORE, out / "scene/model.safetensors"), (AFTER, last)):
                scores.setdefault(name, []).append(score(model, test))
        for name, figures in scores.items():
            record.ours.append({"name": f"{kind}: {name}", **mean_of(figures)})
        judge(record, kind, scores)
        record.details[kind] = asdict(options)
    record.notes = [
        "Depth is multiplied by one factor per image, median(truth) / median(prediction) over all"
        " its pixels, for what stands and for what moves alike; depths up to 80 m count. ± is the"
        " standard deviation over the seeds."
    ]
    if small:
        record.notes.append(
            "The small scale: 128x64 pixels, the light networks, which begin with the trunk of the"
            " shipped student (it has seen simulated rooms and streets, with labels). Drives: the"
            " camera goes along in traffic, often behind a car of its own speed. Objects are the"
            " simulation's instances; which of them move is decided from optical flow, depth and"
            " the camera's motion."
        )
    return record


def simulated(settings: ReproduceSettings, kind: str) -> tuple[DynamicSettings, Dataset]:
    """Clips at ten frames per second, and the light networks for minutes."""
    learn, judged_on = (
        scenes(
            settings.work,
            f"dynamic-{kind}-{seed}",
            rooms=count if kind == "rooms" else 0,
            streets=0,
            seed=seed,
            frames=20,
            drives=count if kind == "drives" else 0,
            size=(208, 128),
            rate_hz=10.0,
        )
        for count, seed in zip(KINDS[kind], (51, 52))
    )

    def loop(stage: str, lr: float, encoder_lr: float, batch: int = 6) -> LoopSettings:
        return replace(schedule(STEPS[stage], lr, encoder_lr, batch), workers=0)

    options = DynamicSettings(
        initial="student-fast",
        sources=(VideoSource(str(learn), step=1 if kind == "drives" else 2),),
        size=(128, 64),
        keep="middle",
        objects="marked",
        flow_by="images",
        scene_loss=SceneLoss(scales=2, settle=STEPS["settle"], motion_alone=30),
        scene=replace(loop("scene", 1e-3, 3e-4), schedule="constant"),
        shapes=loop("shapes", 2e-4, 1e-4),
        scales=loop("scales", 5e-3, 5e-3, 16),
        final=loop("final", 2e-4, 1e-4),
    )
    return options, open_dataset(judged_on)


def cityscapes(settings: ReproduceSettings) -> tuple[DynamicSettings, Dataset]:
    """train= and val= are folders of Cityscapes sequences, masks= one of instance masks, preset= is
    config/train/dynamic-published.yaml."""
    masks = settings.given("masks")
    options = load(
        DynamicSettings,
        Path(settings.path("preset")),
        sources=[{"path": settings.path("train")}],
        objects="marked" if masks else "found",
        masks=masks or "",
    )
    return options, open_dataset(settings.path("val"))


def seeded(options: DynamicSettings, seed: int) -> DynamicSettings:
    """The same with this seed in every stage."""
    loops = {
        n: replace(getattr(options, n), seed=seed) for n in ("scene", "shapes", "scales", "final")
    }
    return replace(options, **loops)


def score(model: Path, test: Dataset) -> dict[str, float]:
    """Figures of what stands and of what moves, by the pipeline that a robot runs."""
    options = PipelineSettings(model=str(model), device="cpu", min_depth=0.0, max_depth=1000.0)
    frames = EvaluateSettings(score=SCORE)
    (entry,) = evaluate(test, {"model": DepthPipeline(options)}, frames)["models"]
    return {f"{part} {key}": entry[part][key] for part in PARTS for key in KEYS}


def mean_of(figures: list[dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, and the spread of REL."""
    row = {}
    for part, what in PARTS.items():
        for key, title in KEYS.items():
            values = [f[f"{part} {key}"] for f in figures]
            row[f"{title}, {what}"] = float(np.mean(values))
            if key == "abs_rel" and len(values) > 1:
                row[f"± {title}, {what}"] = float(np.std(values, ddof=1))
    return row


def judge(record: Record, kind: str, scores: Scores) -> None:
    """The error of what moves falls clearly, that of what stands does not rise."""
    for part in PARTS:
        before, after = (
            float(np.mean([f[f"{part} abs_rel"] for f in scores[name]])) for name in (BEFORE, AFTER)
        )
        figure = f"{after:.3f} against {before:.3f}"
        if part == "dynamic_scaled":
            text = f"{kind}: mined labels lower the REL of what moves by at least {CLEARLY:.0%}"
            record.claim(text, after <= (1 - CLEARLY) * before, figure)
        else:
            text = f"{kind}: they do not raise the REL of what stands by more than {STEADY:.0%}"
            record.claim(text, after <= (1 + STEADY) * before, figure)
