"""saliency.json and its pictures → one self-contained HTML page, and a sheet of the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mde_ros.evaluation import render
from mde_ros.evaluation.grids import Cell, Grid, depth_cell, embedded, mask_cell, write_sheet
from mde_ros.evaluation.opened import Known, OpenPipeline, show
from mde_ros.evaluation.page import PALETTE, legend, themes, write_page
from mde_ros.metrics import depth_metrics, is_measured

# λ, RMSE of N(x ⊗ M) and N(x ⊗ M'), sparseness: ResNet-50 on NYU-v2, Hu et al., ICCV 2019.
PUBLISHED = (
    ("original", 0.555, 0.555, 1.0),
    ("λ = 1", 0.605, 0.568, 0.920),
    ("λ = 2", 0.668, 0.617, 0.746),
    ("λ = 3", 0.699, 0.668, 0.589),
    ("λ = 4", 0.731, 0.733, 0.425),
    ("λ = 5", 0.740, 0.758, 0.361),
    ("λ = 6", 0.772, 0.882, 0.215),
)


class Looked:
    """Keeps pictures of a few frames, evenly spread, while a data set is gone through.

    Args:
        frames: how many there are. pictures: how many are kept.
    """

    def __init__(self, n: OpenPipeline, frames: int, pictures: int, threshold: float) -> None:
        self.n, self.threshold = n, threshold
        self.frames: list[Grid] = []
        self._due = list(range(frames))[:: max(1, frames // pictures)][:pictures]
        self._seen = 0

    def __call__(self, known: Known, masks: Mapping[str, np.ndarray]) -> None:
        if self._due and self._seen >= self._due[0]:
            self._due.pop(0)
            self.frames.append(self._grid(known, masks))
        self._seen += 1

    def _grid(self, known: Known, masks: Mapping[str, np.ndarray]) -> Grid:
        n, x, truth_m = self.n, known.seen.x, known.truth_m
        near, far = (float(v) for v in np.percentile(truth_m[is_measured(truth_m)], [2, 98]))

        def depth(image: torch.Tensor, what: str) -> Cell:
            with torch.no_grad():
                depth_m = n.prediction(known.seen, n.depth(known.seen, image)[0, 0]).depth
            rmse = depth_metrics(depth_m, truth_m).get("rmse_m", float("nan"))
            return depth_cell(depth_m, near, far, f"{what}, RMSE {rmse:.2f} m")

        rows: list[list[Cell | None]] = [
            [Cell(show(x[0], n.model), "image, as the network sees it")],
            [depth_cell(truth_m, near, far, "what it is held against")],
            [depth(x, "N(x)")],
        ]
        for soft in masks.values():
            hard = soft > self.threshold
            seen = x * torch.from_numpy(hard).to(x)
            rows[0].append(mask_cell(soft, f"M, mean {soft.mean():.2f}"))
            rows[1].append(
                Cell(show(seen[0], n.model), f"x ⊗ M', {100 * hard.mean():.0f} % of the pixels")
            )
            rows[2].append(depth(seen, "N(x ⊗ M')"))
        title = f"frame {self._seen + 1}"
        return Grid(title, known.sample.name, ["the whole image", *masks], rows, near, far)


def write_saliency_report(results: Mapping[str, Any], frames: Sequence[Grid], path: Path) -> None:
    """Write the page of a saliency.json, and its pictures as .png beside it.

    Raises:
        ResultsError: when they cannot be written, or a library that draws is missing.
    """
    write_page(
        path,
        "saliency.html.j2",
        results=results,
        settings=results["settings"]["saliency"],
        published=PUBLISHED,
        charts=[
            {
                "title": "Error against sparseness",
                "text": "RMSE relative to that of the whole image; the dashed line is the paper’s.",
                **themes(lambda axes: _draw(axes, results["rows"])),
            }
        ],
        frames=embedded(frames),
        depth_scale=render.gradient(render.turbo(np.linspace(0, 1, 17))),
        all_settings=yaml.safe_dump(results["settings"], sort_keys=False, allow_unicode=True),
    )
    write_sheet(frames, path.with_suffix(".png"))


def _draw(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    whole = rows[0]["hard"].get("rmse_m") or float("nan")
    points = sorted((100 * r["sparseness"], r["hard"].get("rmse_m", 0) / whole) for r in rows)
    axes.plot(*zip(*points), "o-", color=PALETTE[0], ms=4, label="here")
    paper = sorted((100 * s, hard / PUBLISHED[0][2]) for _, _, hard, s in PUBLISHED)
    axes.plot(*zip(*paper), "o--", color=PALETTE[5], ms=3, label="ResNet-50, NYU-v2 (paper)")
    axes.set_xlim(102, 0)
    axes.set_xlabel("pixels shown, %")
    axes.set_ylabel("RMSE / RMSE of the whole image")
    legend(axes)
