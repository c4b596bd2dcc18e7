"""Frames as grids of captioned pictures: for a page, and as one sheet in a PNG file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mde_ros.evaluation import render
from mde_ros.evaluation.results import write_atomically

WIDTH = 420  # pixels of a picture at most


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture (H, W, 3) uint8 with its caption."""

    picture: np.ndarray
    caption: str


@dataclass(frozen=True, eq=False)
class Grid:
    """One frame.

    Attributes:
        title: why it is shown. name: the frame's in its data set.
        headings: of the columns. rows: of as many cells, None where there is nothing.
        near_m, far_m: ends of the scale of depth.
    """

    title: str
    name: str
    headings: list[str]
    rows: list[list[Cell | None]]
    near_m: float
    far_m: float


def depth_cell(depth_m: np.ndarray, near_m: float, far_m: float, caption: str) -> Cell:
    """A depth map (H, W) in metres."""
    return Cell(small(render.depth_picture(depth_m, near_m, far_m)), caption)


def small(picture: np.ndarray) -> np.ndarray:
    """A picture no wider than WIDTH, so that few of them hold little memory."""
    if picture.shape[1] <= WIDTH:
        return picture
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)


def mask_cell(mask: np.ndarray, caption: str) -> Cell:
    """A mask (h, w) in [0, 1]: white is shown."""
    grey = (255 * mask).round().astype(np.uint8)
    return Cell(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), caption)


def embedded(grids: Sequence[Grid]) -> list[dict[str, Any]]:
    """Grids ready for a template, their pictures as data URIs."""
    return [
        {
            "about": grid,
            "rows": [
                [cell and (render.data_uri(cell.picture, WIDTH), cell.caption) for cell in row]
                for row in grid.rows
            ],
        }
        for grid in grids
    ]


def write_sheet(grids: Sequence[Grid], path: Path) -> None:
    """All grids below each other in one PNG file.

    Raises:
        ResultsError: when it cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [(grid, row) for grid in grids for row in grid.rows]
    columns = max((len(row) for _, row in rows), default=1)
    shape = rows[0][1][0].picture.shape if rows and rows[0][1][0] else (3, 4)
    height = 2.6 * shape[0] / shape[1] + 0.28
    figure = Figure(figsize=(2.6 * columns, height * max(1, len(rows))), layout="constrained")
    each = figure.subplots(len(rows) or 1, columns, squeeze=False)
    for axes in each.flat:
        axes.set_axis_off()
    for (grid, row), line in zip(rows, each):
        for i, cell in enumerate(row):
            if cell is not None:
                line[i].imshow(cell.picture)
                heading = f"{grid.headings[i]}\n" if row is grid.rows[0] else ""
                line[i].set_title(heading + cell.caption, fontsize=7, loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())
