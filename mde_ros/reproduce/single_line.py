"""Single-line LiDAR completion without labels: the slides' tables I and II (METHODS 7b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.evaluation.baseline import ScanScaled
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.evaluation.score import ScoreSettings
from mde_ros.pipeline import DepthPipeline
from mde_ros.reproduce.record import Record, ReproduceSettings, Row, console
from mde_ros.reproduce.simulated import scenes
from mde_ros.training import completion
from mde_ros.training.batches import Source, Stored
from mde_ros.training.completion import CompletionSettings

FIGURES = {"rmse_m": "RMSE, m", "abs_rel": "REL", "log10": "log10", "delta1": "δ < 1.25"}
TITLES = list(FIGURES.values())
PAPER = [
    ("Table I: Monodepth2, median-scaled", 4.198, 0.134, 0.054, 0.854),
    ("Table I: CADepth, median-scaled", 3.914, 0.120, 0.048, 0.877),
    ("Table I: ours, Monodepth2 → S2D", 3.700, 0.100, 0.041, 0.920),
    ("Table I: ours, Monodepth2 → DCVAN", 3.723, 0.098, 0.040, 0.920),
    ("Table I: ours, CADepth → S2D", 3.404, 0.088, 0.036, 0.933),
]
ABLATION = [  # RMSE with ℓ_ud; + ℓ_sl; + ℓ_LDP
    ("Table II: Monodepth2 → S2D", 3.809, 3.739, 3.700),
    ("Table II: Monodepth2 → DCVAN", 3.890, 3.886, 3.723),
    ("Table II: CADepth → S2D", 3.538, 3.461, 3.404),
]
LOSSES = {"ℓ_ud": (0.0, 0.0), "ℓ_ud + ℓ_sl": (None, 0.0), "ℓ_ud + ℓ_sl + ℓ_LDP": (None, None)}
TEACHERS = ("student-fast", "student-published")  # in place of Monodepth2 and CADepth
RIVALS = ("teacher alone", "teacher x median(scan / teacher)")
STEPS = {"small": 400, "full": 15_000}
HEIGHT_M = 0.25  # of the virtual scan below the camera


def run(settings: ReproduceSettings) -> Record:
    """Train with one, two and three terms for every teacher and seed; score on unseen scenes."""
    record = Record(
        "single-line",
        "Completion from a single LiDAR line, without labels",
        'RA-L 2023, "R2M", tables I and II as shown on the author\'s slides',
        settings,
    )
    record.paper = [dict(zip(("name", *TITLES), row)) for row in PAPER]
    record.paper += [
        {"name": f"{name}, {loss}", "RMSE, m": value}
        for name, *values in ABLATION
        for loss, value in zip(LOSSES, values)
    ]
    if settings.scale == "small":
        sources, test = simulated(settings)
    else:
        sources, test = kitti(settings)

    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for teacher in TEACHERS:
        pipeline = DepthPipeline(PipelineSettings(model=teacher, device="cpu"))
        alone = {
            "teacher alone": pipeline,
            "teacher x median(scan / teacher)": ScanScaled(pipeline),
        }
        for name, figures in score(alone, test).items():
            rows[teacher, name] = [figures]
        taught = CompletionSettings(sources=sources, teacher=teacher, initial=TEACHERS[0])
        stored = completion.labelled(taught)
        # The second teacher is there for the ordering; at the small scale one seed has to do.
        few = settings.scale == "small" and teacher != TEACHERS[0]
        for seed in settings.seeds[: 1 if few else None]:
            for loss in LOSSES:
                model = train(settings, taught, stored, loss, seed)
                trained = DepthPipeline(PipelineSettings(model=str(model), device="cpu"))
                rows.setdefault((teacher, loss), []).append(score({loss: trained}, test)[loss])
    for (teacher, name), runs in rows.items():
        record.ours.append({"name": f"{teacher}: {name}", **summary(runs)})
    judge(record, rows)
    record.details = {"sources": [asdict(s) for s in sources], "steps": STEPS[settings.scale]}
    if real := settings.given("real"):
        on_real_data(record, Path(real))
    return record


def on_real_data(record: Record, data: Path) -> None:
    """Two recordings, each learnt from its beginning and judged on its end, as a robot would: from
    the shipped weights.

    HoloLens: a virtual scan; KITTI: one ring of its LiDAR, with more video of the same camera.
    """
    teacher, settings = TEACHERS[0], record.settings
    pipeline = DepthPipeline(PipelineSettings(model=teacher, device="cpu"))
    office, drive = str(data / "hololens_office"), str(data / "kitti_drive")
    scan = f"height={HEIGHT_M}"
    sets = {
        "HoloLens, last 60 frames": (
            (Source(office, skip_last=60, scan=scan),),
            WithScan(open_dataset(office), VirtualScan.parse(scan)),
            EvaluateSettings(last=60),
        ),
        "KITTI drive, last 20 frames": (
            (Source(drive, skip_last=20), Source(str(data / "kitti_video"))),
            open_dataset(drive),
            EvaluateSettings(last=20, score=ScoreSettings(depth_range=(1e-3, 80.0))),
        ),
    }
    for name, (sources, test, frames) in sets.items():
        taught = CompletionSettings(sources=sources, teacher=teacher)
        stored, loss = completion.labelled(taught), list(LOSSES)[-1]
        model = train(settings, taught, stored, loss, settings.seeds[0], name.split()[0])
        ours_alone = DepthPipeline(PipelineSettings(model=str(model), device="cpu"))
        models = {RIVALS[0]: pipeline, RIVALS[1]: ScanScaled(pipeline), "ours": ours_alone}
        figures = score(models, test, frames)
        record.ours += [{"name": f"{name}: {k}", **summary([v])} for k, v in figures.items()]
        for rival in RIVALS:
            for key in ("rmse_m", "abs_rel"):
                ours, theirs = figures["ours"][key], figures[rival][key]
                text = f"{name}: completion is better than {rival} in {FIGURES[key]}"
                record.claim(text, ours < theirs, f"{ours:.3f} against {theirs:.3f}")


def simulated(settings: ReproduceSettings) -> tuple[tuple[Source, ...], Dataset]:
    """Rooms and streets to learn from, and others to be judged on."""
    learn = scenes(settings.work, "single-line-train", rooms=50, streets=10, seed=11)
    judge_on = scenes(settings.work, "single-line-test", rooms=16, streets=4, seed=12)
    sources = (Source(str(learn), scan=f"height={HEIGHT_M},noise=0.01"),)
    return sources, WithScan(open_dataset(judge_on), VirtualScan(HEIGHT_M, noise=0.01))


def kitti(settings: ReproduceSettings) -> tuple[tuple[Source, ...], Dataset]:
    """KITTI depth completion: one ring of velodyne_raw in, annotated depth as truth."""
    return (Source(settings.path("train")),), open_dataset(settings.path("val"))


def train(
    settings: ReproduceSettings,
    taught: CompletionSettings,
    stored: list[list[Stored]],
    loss: str,
    seed: int,
    name: str = "",
) -> Path:
    """One training with these terms of the loss; returns the checkpoint's path."""
    names = ("point_weight", "line_weight")
    weights = {n: w for n, w in zip(names, LOSSES[loss]) if w is not None}
    loop = replace(taught.loop, steps=STEPS[settings.scale], seed=seed, warmup=50)
    options = replace(taught, loop=loop, **weights)  # type: ignore[arg-type]
    terms = list(LOSSES).index(loss) + 1
    run = f"{name or settings.scale}-{taught.teacher}-{terms}-{seed}"
    console.print(f"{taught.teacher}, {loss}, seed {seed} {name}", highlight=False)
    return completion.train(options, Path(settings.work) / "single-line" / run, stored)


def score(
    models: Mapping[str, Any], test: Dataset, settings: EvaluateSettings | None = None
) -> dict[str, dict[str, float]]:
    """Metric figures of every model on the test set, without median scaling."""
    results = evaluate(test, models, settings)
    return {entry["name"]: {k: entry["metrics"][k] for k in FIGURES} for entry in results["models"]}


def summary(runs: list[dict[str, float]]) -> Row:
    """Mean of each figure over the seeds, and the spread of the RMSE."""
    row: dict[str, Any] = {
        title: float(np.mean([r[key] for r in runs])) for key, title in FIGURES.items()
    }
    if len(runs) > 1:
        row["± RMSE"] = float(np.std([r["rmse_m"] for r in runs], ddof=1))
    return row


def judge(record: Record, rows: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    """Hold the orderings of the paper against our figures."""

    def mean(teacher: str, name: str, key: str = "rmse_m") -> float:
        return float(np.mean([r[key] for r in rows[teacher, name]]))

    full = list(LOSSES)[-1]
    for teacher in TEACHERS:
        for rival in RIVALS:
            for key in ("rmse_m", "abs_rel"):
                ours, theirs = mean(teacher, full, key), mean(teacher, rival, key)
                text = f"{teacher}: completion is better than {rival} in {FIGURES[key]}"
                record.claim(text, ours < theirs, f"{ours:.3f} against {theirs:.3f}")
        for before, after in zip(LOSSES, list(LOSSES)[1:]):
            a, b = mean(teacher, before), mean(teacher, after)
            text = f"{teacher}: {after} is better than {before} in RMSE"
            record.claim(text, b < a, f"{b:.3f} against {a:.3f} m")
