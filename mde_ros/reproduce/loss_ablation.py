"""The three terms of the loss, one after another: Hu et al., WACV 2019, ablation (METHODS 1)."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.published import Prepared
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.scores import FIGURES, Runs, claim_better, rows, score
from mde_ros.reproduce.simulated import FROZEN, scenes
from mde_ros.training import supervised
from mde_ros.training.batches import Source
from mde_ros.training.loop import LoopSettings
from mde_ros.training.supervised import SupervisedSettings

LOSSES = {  # λ and μ, the weights of gradient and normal
    "depth": (0.0, 0.0),
    "depth + gradient": (1.0, 0.0),
    "depth + gradient + normal": (1.0, 1.0),
}
KEYS = ("rmse_m", "abs_rel", "delta1", "edge_f1")
PAPER = [
    ("depth", 0.580, 0.133, 0.830, 0.525),
    ("depth + gradient", 0.563, 0.128, 0.841, 0.543),
    ("depth + gradient + normal", 0.555, 0.126, 0.843, 0.548),
]
STEPS = 150  # of the small scale
SIZE = (208, 156)


def run(settings: ReproduceSettings) -> Record:
    """A training for each loss and seed, scored on scenes not seen."""
    record = Record(
        "loss-ablation",
        "Depth, gradient and normal in the loss",
        "Hu et al., WACV 2019, ablation with ResNet-50 as shown on the author's slides",
        settings,
    )
    record.paper = [dict(zip(("name", *(FIGURES[k] for k in KEYS)), row)) for row in PAPER]
    common, test = simulated(settings) if settings.scale == "small" else nyu(settings)
    runs: Runs = {}
    for loss, (gradient, normal) in LOSSES.items():
        for seed in settings.seeds:
            console.print(f"{loss}, seed {seed}", highlight=False)
            out = Path(settings.work) / f"loss-ablation/{settings.scale}-{loss.count('+')}-{seed}"
            loop = replace(common.loop, seed=seed)
            options = replace(common, gradient_weight=gradient, normal_weight=normal, loop=loop)
            runs.setdefault(loss, []).append(score(supervised.train(options, out), test))
    record.ours = rows(runs, KEYS)
    for fewer, more in pairwise(LOSSES):
        for key in ("edge_f1", "rmse_m", "abs_rel"):
            claim_better(record, runs, more, fewer, key)
    record.details = {"training": asdict(common)}
    if settings.scale == "small":
        record.notes = [
            f"The small scale trains the shipped student on, {STEPS} steps in simulated rooms. Our"
            " reading of it: at so few pixels an edge that is one off costs the gradient's term"
            " twice, a blurred one once, and few steps find the blurred one."
        ]
    return record


def simulated(settings: ReproduceSettings) -> tuple[SupervisedSettings, Dataset]:
    """The shipped student, trained on with each loss on simulated rooms."""
    learn = scenes(settings.work, "rooms", rooms=30, streets=0, seed=31)
    judged_on = scenes(settings.work, "rooms-test", rooms=10, streets=0, seed=32)
    loop = LoopSettings(
        steps=STEPS, batch=8, lr=5e-4, encoder_lr=1e-4, warmup=20,
        frozen=FROZEN,
    )  # fmt: skip
    common = SupervisedSettings(
        network="fast_mobilenet_v2",
        initial="student-fast",
        sources=(Source(str(learn)),),
        size=SIZE,
        loop=loop,
    )
    return common, open_dataset(judged_on)


def nyu(settings: ReproduceSettings) -> tuple[SupervisedSettings, Dataset]:
    """As published: nyu= and nyu_test= are the authors' lists, ImageNet weights come from timm."""
    common = SupervisedSettings(initial="imagenet", sources=(Source(settings.path("nyu")),))
    return common, Prepared(open_dataset(settings.path("nyu_test")), "nyu")
