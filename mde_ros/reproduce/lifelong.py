"""Lifelong-MonoDepth: one domain after another, against forgetting (METHODS 4, the slides' table).

Every method begins with the same model of the first domain, and every figure of a domain is that of
its own head, as published. How often the right head would have been chosen stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.domains import DomainSwitch
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.pipeline import DepthPipeline
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.simulated import FROZEN, scenes
from mde_ros.runtime import find_model
from mde_ros.training import lifelong
from mde_ros.training.batches import Source
from mde_ros.training.lifelong import LifelongSettings
from mde_ros.training.loop import LoopSettings
from mde_ros.training.memory import Known, replay_folder

FIGURES = {"rmse_m": "RMSE, m", "abs_rel": "REL", "delta1": "δ < 1.25"}
METHODS = {
    "joint": "joint", "finetune": "fine-tune", "frozen": "FAL", "ewc": "EWC", "lifelong": "ours"
}  # fmt: skip
RIVALS = ("finetune", "frozen", "ewc")
PAPER = [  # RMSE, REL, δ1 on NYU, then on KITTI
    ("single domain", 0.532, 0.130, 0.836, 3.286, 0.070, 0.939),
    ("joint", 0.581, 0.151, 0.803, 3.658, 0.086, 0.911),
    ("fine-tune, NYU then KITTI", 1.133, 0.328, 0.451, 3.655, 0.079, 0.918),
    ("FAL, NYU then KITTI", 0.532, 0.130, 0.836, 8.946, 0.252, 0.600),
    ("EWC, NYU then KITTI", 1.007, 0.251, 0.475, 4.550, 0.100, 0.876),
    ("ours, NYU then KITTI", 0.622, 0.162, 0.768, 3.829, 0.081, 0.910),
    ("ours, KITTI then NYU", 0.567, 0.142, 0.812, 5.060, 0.136, 0.813),
]
PUBLISHED: dict[str, Any] = {"keep": (10.0,), "norms": "trained"}
REAL = {"hololens_office": 60, "kitti_drive": 15, "aims_lab": 40}  # frames to be judged on
LOST, CHOSEN = 0.20, 0.98  # of the old domain's RMSE, at most; of the heads, at least
Figures = dict[str, float]


@dataclass(frozen=True)
class Place:
    """A domain: what it is learnt from, and what it is judged on."""

    name: str
    source: Source
    test: Dataset
    judged: EvaluateSettings = field(default_factory=EvaluateSettings)

    @property
    def frames(self) -> int:
        """How many it is learnt from."""
        return len(self.source.open()) - self.source.skip_last


def run(settings: ReproduceSettings) -> Record:
    """All methods in both orders of two domains, for every seed."""
    record = Record(
        "lifelong",
        "One model for many places, learnt one after another",
        'Hu et al., "Lifelong-MonoDepth", TNNLS, table as shown on the author\'s slides',
        settings,
    )
    heads = [f"{title}, {place}" for place in ("NYU", "KITTI") for title in FIGURES.values()]
    record.paper = [dict(zip(("name", *heads), row)) for row in PAPER]
    places = simulated(settings) if settings.scale == "small" else published(settings)
    for order in (places, places[::-1]):
        compare(record, order, settings.seeds)
    if real := settings.given("real"):
        walk = [recorded(Path(real) / name, last) for name, last in REAL.items()]
        compare(record, walk, settings.seeds[:1])
    record.details = {"loop": asdict(loop_of(settings, places[0], 0))}
    record.notes = [
        "Every method begins with the same model of the first domain, and a domain is scored with"
        " its own head. The small scale uses the light network at 152x112 pixels for a few hundred"
        " steps. It begins with the trunk of the shipped student instead of ImageNet's, which knows"
        " rooms and streets, and all methods keep the batch norms as they are: so FAL and"
        " fine-tuning are stronger rivals than the published ones, which lose more.",
        "Of the recordings, office and lab are both indoors: which head is chosen there matters"
        " less than in a street.",
    ]
    return record


def simulated(settings: ReproduceSettings) -> list[Place]:
    """Rooms and streets, with other scenes to be judged on."""
    places = []
    for name in ("rooms", "streets"):
        of = {"rooms": 0, "streets": 0}
        learn = scenes(settings.work, f"lifelong-{name}", **of | {name: 30}, seed=21)
        judged_on = scenes(settings.work, f"lifelong-{name}-test", **of | {name: 8}, seed=22)
        places.append(Place(name, Source(str(learn)), open_dataset(judged_on)))
    return places


def published(settings: ReproduceSettings) -> list[Place]:
    """NYU-v2 and KITTI: nyu=, nyu_test=, kitti= and kitti_test=."""
    return [
        Place(name, Source(settings.path(name)), open_dataset(settings.path(f"{name}_test")))
        for name in ("nyu", "kitti")
    ]


def recorded(path: Path, last: int) -> Place:
    """A recording, learnt from its beginning and judged on its end."""
    options = ("points=none",) if path.name.startswith("kitti") else ()
    source = Source(str(path), skip_last=last, options=options)
    return Place(path.name, source, source.open(), EvaluateSettings(last=last))


def compare(record: Record, order: Sequence[Place], seeds: Sequence[int]) -> None:
    """All methods over these domains in this order: rows, and what is claimed of them."""
    title = " then ".join(place.name for place in order)
    rows: dict[str, list[list[Figures]]] = {"single domain": []}
    right: list[tuple[float, float]] = []
    for seed in seeds:
        alone = [learn(record.settings, [place], "lifelong", seed) for place in order]
        rows["single domain"].append([score(m, p) for m, p in zip(alone, order)])
        for method, name in METHODS.items():
            console.print(f"{title}: {name}, seed {seed}", highlight=False)
            model = learn(record.settings, order, method, seed)
            rows.setdefault(name, []).append([score(model, place) for place in order])
            if method == "lifelong":
                right.append(right_heads(model, order))
    for name, runs in rows.items():
        row: dict[str, Any] = {"name": f"{title}: {name}"}
        for i, nth in zip(range(len(order)), ("first", "second", "third")):
            row |= {f"{label}, {nth}": mean(runs, i, key) for key, label in FIGURES.items()}
        record.ours.append(row)

    def average(name: str) -> float:
        return float(np.mean([mean(rows[name], i, "abs_rel") for i in range(len(order))]))

    for rival in (METHODS[method] for method in RIVALS):
        ours, theirs = average("ours"), average(rival)
        text = f"{title}: ours has a lower REL than {rival}, averaged over the domains"
        record.claim(text, ours < theirs, f"{ours:.3f} against {theirs:.3f}")
    for i, place in enumerate(order[:-1]):
        before, after = (mean(rows[name], i, "rmse_m") for name in ("single domain", "ours"))
        text = f"{title}: the RMSE of {place.name} has grown by {LOST:.0%} at most"
        record.claim(text, after <= (1 + LOST) * before, f"{before:.3f} to {after:.3f} m")
    by_frame, believed = (float(x) for x in np.mean(right, 0))
    text = f"{title}: the pipeline takes the right head for {CHOSEN:.0%} of the frames at least"
    figure = f"{believed:.1%}; the nearest mean is right for {by_frame:.1%}, frame by frame"
    record.claim(text, believed >= CHOSEN, figure)


def mean(runs: list[list[Figures]], domain: int, key: str) -> float:
    return float(np.mean([figures[domain][key] for figures in runs]))


def learn(settings: ReproduceSettings, order: Sequence[Place], method: str, seed: int) -> Path:
    """The model that learnt these domains one after another; what is there is not made again."""
    model: Path | None = None
    for i, place in enumerate(order):
        name = "-".join(p.name for p in order[: i + 1])
        folder = f"{settings.scale}/{name}-{method if i else 'alone'}-{seed}"
        out = Path(settings.work) / "lifelong" / folder
        begin = {"to": str(model)} if model else fresh(settings)
        options = LifelongSettings(
            **begin,
            domain=place.name,
            sources=(place.source,),
            known=tuple(as_known(p) for p in order[:i]) if method == "joint" else (),
            method=method,
            loop=loop_of(settings, place, seed),
            **PUBLISHED if settings.scale == "full" else {},
        )
        model = out / "model.safetensors"
        if not replay_folder(model, place.name).is_dir():  # the last that a training writes
            lifelong.train(options, out)
    assert model is not None
    return model


def fresh(settings: ReproduceSettings) -> dict[str, Any]:
    """What the model of the first domain is made of."""
    if settings.scale == "full":
        return {"to": "", "network": "lifelong_resnet34", "initial": "imagenet"}
    student = str(find_model("student-fast", ".safetensors"))
    return {"to": "", "initial": student, "pixels": 152 * 112, "focal_px": 135.0}


def as_known(place: Place) -> Known:
    """All frames that a domain is learnt from, for joint training."""
    s = place.source
    return Known(s.path, skip_last=s.skip_last, options=s.options, domain=place.name)


def loop_of(settings: ReproduceSettings, place: Place, seed: int) -> LoopSettings:
    """The published schedule; or some 250 steps at a higher rate."""
    if settings.scale == "full":
        return LoopSettings(
            steps=20 * place.frames // 8, batch=8, lr=1e-4, encoder_lr=1e-4, weight_decay=1e-4,
            schedule="halve", step_every=5 * place.frames // 8, optimizer="adam", warmup=0,
            clip=0.0, ema=0.0, seed=seed, precision="32-true",
        )  # fmt: skip
    return LoopSettings(
        steps=max(250, 3 * place.frames // 8), batch=8, lr=1e-3, encoder_lr=3e-4, warmup=20,
        seed=seed, frozen=FROZEN,
    )  # fmt: skip


def score(model: Path, place: Place) -> Figures:
    """Figures of a domain's own head on the frames that it is judged on."""
    pipeline = DepthPipeline(PipelineSettings(model=str(model), domain=place.name, threads=0))
    entry = evaluate(place.test, {"model": pipeline}, place.judged)["models"][0]
    return {key: entry["metrics"][key] for key in FIGURES}


def right_heads(model: Path, order: Sequence[Place]) -> tuple[float, float]:
    """How often the nearest mean is that of the frame's domain, and how often the domain that the
    pipeline keeps to, begun anew with every recording, is; the domains count alike."""
    pipeline = DepthPipeline(PipelineSettings(model=str(model), threads=0))
    names = pipeline.runtime.spec.domains
    shares = []
    for place in order:
        nearest, kept, recording, switch = [], [], None, DomainSwitch(names)
        for index in place.judged.indices(len(place.test)):
            sample = place.test[index]
            if sample.name.rpartition("/")[0] != recording:
                recording, switch = sample.name.rpartition("/")[0], DomainSwitch(names)
            optics = pipeline.optics(sample.frame.camera)
            image, _ = pipeline.prepare(sample.frame, optics)
            distances = pipeline.runtime(image, optics.network.focal_px)["distances"].tolist()
            nearest.append(names[np.argmin(distances)] == place.name)
            kept.append(names[switch(distances)] == place.name)
        shares.append((np.mean(nearest), np.mean(kept)))
    by_frame, believed = np.mean(shares, 0)
    return float(by_frame), float(believed)
