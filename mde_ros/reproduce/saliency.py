"""How few pixels a depth network needs, by λ: Hu et al., ICCV 2019 (METHODS 2, table 1)."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.evaluation import saliency as evaluation
from mde_ros.evaluation.opened import OpenPipeline
from mde_ros.evaluation.run import Tally
from mde_ros.evaluation.saliency_report import PUBLISHED as PAPER
from mde_ros.reproduce.places import MODEL, places
from mde_ros.reproduce.record import Record, ReproduceSettings, Row, console
from mde_ros.reproduce.simulated import FROZEN
from mde_ros.training import saliency
from mde_ros.training.batches import Source
from mde_ros.training.loop import LoopSettings
from mde_ros.training.saliency import SaliencySettings

SOFT, HARD, SHOWN = "RMSE (M), m", "RMSE (M'), m", "sparseness"
WEIGHTS = {"small": (2.0, 4.0, 6.0, 8.0), "full": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}  # λ
STEPS, PIXELS = 300, 0  # of the small scale: whole views, for windows make it ask for more
SHARE, COST = 0.4, 0.4  # of the pixels, and what they may cost of the RMSE


def run(settings: ReproduceSettings) -> Record:
    """A mask for every λ and seed, scored on frames not seen."""
    record = Record(
        "saliency",
        "How few pixels a depth network needs",
        'Hu et al., "Visualization of Convolutional Neural Networks for Monocular Depth'
        ' Estimation", ICCV 2019, table I',
        settings,
    )
    record.paper = [dict(zip(("name", SOFT, HARD, SHOWN), row)) for row in PAPER]
    where = places(settings)
    common = training(settings, where.sources)
    n = OpenPipeline(PipelineSettings(model=common.model))
    found: dict[str, list[list[Row]]] = {name: [] for name in where.tests}
    for seed in settings.seeds:
        files = []
        for weight in WEIGHTS[settings.scale]:
            console.print(f"λ = {weight:g}, seed {seed}", highlight=False)
            chosen = replace(common, sparseness=weight, loop=replace(common.loop, seed=seed))
            out = Path(settings.work) / "saliency" / f"{settings.scale}-{weight:g}-{seed}"
            files.append(str(saliency.train(chosen, out)))
        masks = evaluation.load_masks(files, n)
        for name, (dataset, frames) in where.tests.items():
            tally = Tally(evaluation.cells(masks), frames.score)
            judged = evaluation.SaliencySettings(frames=frames)
            evaluation.mask_data(dataset, n, masks, judged, "truth", tally)
            found[name].append([figures(row) for row in evaluation.table_of(tally, masks)])
    for name, tables in found.items():
        rows = [mean_row(same) for same in zip(*tables)]
        record.ours += [row | {"name": f"{name}: {row['name']}"} for row in rows]
        claim(record, name, rows)
    record.details = {"training": asdict(common)}
    record.notes = [
        "M' is M binarised at 0.025; sparseness is the part of the pixels that it shows; figures"
        " are means over the frames and seeds."
        + (
            " At the small scale N is the shipped student and G its trunk with a mask for a head,"
            f" {STEPS} steps of 4 images."
            if settings.scale == "small"
            else ""
        )
    ]
    return record


def training(settings: ReproduceSettings, sources: tuple[Source, ...]) -> SaliencySettings:
    """The student and a light mask; or model= the depth network and drn= weights of DRN-D-22."""
    if settings.scale == "full":
        epochs = LoopSettings(
            steps=63_360, batch=8, lr=1e-4, encoder_lr=1e-4, weight_decay=1e-4, optimizer="adam",
            warmup=0, schedule="constant", ema=0.0, clip=0.0, precision="32-true",
        )  # fmt: skip
        return SaliencySettings(
            network="saliency_drn22", model=settings.path("model"), initial=settings.path("drn"),
            sources=sources, loop=epochs,
        )  # fmt: skip
    loop = LoopSettings(
        steps=STEPS, batch=4, lr=2e-3, encoder_lr=2e-4, warmup=10, ema=0.95, precision="32-true",
        frozen=FROZEN,
    )  # fmt: skip
    return SaliencySettings(
        model=MODEL, initial=MODEL, sources=sources, pixels=PIXELS, smallest_crop=0.7,
        loop=loop,
    )  # fmt: skip


def figures(row: Row) -> Row:
    """A row of `mde saliency` with the columns of the published table."""
    errors = {SOFT: row["soft"]["rmse_m"], HARD: row["hard"]["rmse_m"]}
    return {"name": row["name"]} | errors | {SHOWN: row["sparseness"]}


def mean_row(rows: tuple[Row, ...]) -> Row:
    """Means over the seeds."""
    return {"name": rows[0]["name"]} | {
        key: float(np.mean([row[key] for row in rows])) for key in (SOFT, HARD, SHOWN)
    }


def claim(record: Record, place: str, rows: list[Row]) -> None:
    """Sparser and worse with λ, both monotone; and what four pixels of ten cost."""
    whole, masked = rows[0], rows[1:]
    for key, sign, text in (
        (SHOWN, -1, "the larger λ, the sparser the mask"),
        (SOFT, 1, "the larger λ, the larger the RMSE under M"),
        (HARD, 1, "the larger λ, the larger the RMSE under M'"),
    ):
        values = [row[key] for row in masked]
        holds = all(sign * (b - a) > 0 for a, b in pairwise(values))
        record.claim(f"{place}: {text}", holds, ", ".join(f"{v:.3f}" for v in values))
    by_shown = sorted((row[SHOWN], row[HARD]) for row in rows)
    shown, errors = zip(*by_shown)
    cost = float(np.interp(SHARE, shown, errors)) / whole[HARD] - 1
    reached = shown[0] <= SHARE
    record.claim(
        f"{place}: at {SHARE:.0%} of the pixels RMSE rises by at most {COST:.0%}",
        reached and cost <= COST,
        f"{cost:+.0%}, interpolated" if reached else f"the sparsest mask shows {shown[0]:.0%}",
    )
