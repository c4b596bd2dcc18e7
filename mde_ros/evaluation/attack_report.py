"""attack.json and its pictures → one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from mde_ros.evaluation import render
from mde_ros.evaluation.grids import (
    Cell,
    Grid,
    depth_cell,
    embedded,
    mask_cell,
    small,
    write_sheet,
)
from mde_ros.evaluation.opened import know, show
from mde_ros.evaluation.page import PALETTE, legend, themes, write_page
from mde_ros.evaluation.robustness import (
    DEFENCE,
    KNOWN,
    AttackSettings,
    Suspects,
    attack_frame,
    middle,
)
from mde_ros.evaluation.roc import curve
from mde_ros.metrics import depth_metrics, is_measured

METRICS = (
    ("rmse_m", "RMSE, m ↓"),
    ("abs_rel", "AbsRel ↓"),
    ("log10", "log10 ↓"),
    ("delta1", "δ < 1.25 ↑"),
    ("delta2", "δ < 1.25² ↑"),
    ("delta3", "δ < 1.25³ ↑"),
    ("coverage", "coverage ↑"),
)


def take_pictures(
    dataset: Any, suspects: Suspects, settings: AttackSettings, results: Mapping[str, Any]
) -> list[Grid]:
    """The frames that the attack harms least, middling and most, attacked once more."""
    column = 1 + middle(settings)
    harm = {
        frame["index"]: frame["rmse_m"]["N"][column] - frame["rmse_m"]["N"][0]
        for frame in results["per_frame"]
        if None not in frame["rmse_m"]["N"]
    }
    ranked = sorted(harm, key=lambda index: harm[index])
    if not ranked:
        return []
    chosen = {ranked[len(ranked) // 2]: "the middle of all frames by what the attack does"}
    chosen.setdefault(ranked[-1], "the frame that the attack harms most")
    chosen.setdefault(ranked[0], "the frame that the attack harms least")
    one = replace(settings, eps=(settings.eps[middle(settings)],))
    return [
        frame_pictures(title, dataset[index], suspects, one, results["target"])
        for index, title in chosen.items()
    ]


def frame_pictures(
    title: str, sample: Any, suspects: Suspects, settings: AttackSettings, target: str
) -> Grid:
    """Attack a frame by one ε; a column for each image: what was added, depths, the mask."""
    known = know(suspects.n, sample, 0, target)
    assert known is not None and len(settings.eps) == 1
    n, seen, truth_m = suspects.n, known.seen, known.truth_m
    attacked = attack_frame(suspects, known, target, settings)
    near, far = (float(v) for v in np.percentile(truth_m[is_measured(truth_m)], [2, 98]))
    images = {
        "clean": attacked.images["N"][0],
        f"attacked through N, ε = {settings.eps[0]:g}": attacked.images["N"][1],
    }
    if "defence" in attacked.images:
        images["attacked through N and the mask"] = attacked.images["defence"][1]
    measured = depth_cell(truth_m, near, far, "measured depth") if target == "truth" else None

    def rows_of(what: str, depths: Sequence[Tensor]) -> list[list[Cell | None]]:
        """Depths (1, h', w') of the images, as far as they go; how they differ from the clean."""
        maps = [n.prediction(seen, depth[0]).depth for depth in depths]
        line: list[Cell | None] = []
        for depth_m in maps:
            numbers = depth_metrics(depth_m, truth_m, settings.frames.score.depth_range)
            error = f", RMSE {numbers['rmse_m']:.2f} m" if "rmse_m" in numbers else ""
            line.append(depth_cell(depth_m, near, far, f"{what}{error}"))
        changes: list[Cell | None] = [None]
        for depth_m in maps[1:]:
            picture = render.error_picture(depth_m, maps[0])
            changes.append(Cell(small(picture), f"{what}: change by the attack"))
        return [cells + [None] * (len(images) - len(cells)) for cells in (line, changes)]

    clean, *others = images.values()
    rows: list[list[Cell | None]] = [
        [Cell(show(image, n.model), "image, as the network sees it") for image in images.values()],
        [measured, *(_noise(clean, image, suspects) for image in others)],
    ]
    with torch.no_grad():
        rows += rows_of("N", [n.depth(seen, image[None])[0] for image in images.values()])
        if "N_adv" in attacked.depths:
            rows += rows_of("N_adv", list(attacked.depths["N_adv"]))
        if suspects.defence:
            defended = [*attacked.depths[DEFENCE]]
            if KNOWN in attacked.depths:
                defended.append(attacked.depths[KNOWN][1])
            rows += rows_of("behind the mask", defended)
            rows.append([_mask(suspects, image) for image in images.values()])
    return Grid(title, sample.name, list(images), rows, near, far)


def _noise(clean: Tensor, attacked: Tensor, suspects: Suspects) -> Cell:
    """What was added, around grey, so many times that it can be seen."""
    levels = (255 * suspects.n.model.std[0] * (attacked - clean)).permute(1, 2, 0).cpu().numpy()
    largest = max(float(np.abs(levels).max()), 1e-6)
    gain = 2.0 ** np.floor(np.log2(127 / largest))
    picture = (128 + gain * levels).clip(0, 255).astype(np.uint8)
    return Cell(picture, f"noise, × {gain:g}: at most {largest:.1f} of 255 grey levels")


def _mask(suspects: Suspects, image: Tensor) -> Cell:
    assert suspects.defence is not None
    mask = suspects.defence(image[None])[0, 0].cpu().numpy()
    return mask_cell(mask, f"mask: white is shown, {100 * mask.mean():.0f} % of the light")


def write_attack_report(results: Mapping[str, Any], frames: Sequence[Grid], path: Path) -> None:
    """Write the page of an attack.json, and its pictures as .png beside it.

    Raises:
        ResultsError: when it cannot be written, or a library that draws is missing.
    """
    colours = {row["name"]: PALETTE[i % len(PALETTE)] for i, row in enumerate(results["rows"])}
    write_page(
        path,
        "attack.html.j2",
        results=results,
        settings=results["settings"]["attack"],
        metrics=METRICS,
        colours=colours,
        charts=_charts(results, colours),
        frames=embedded(frames),
        error_scale=render.gradient(render.diverging(np.linspace(-1, 1, 13))),
        error_limit=round(100 * render.ERROR_LIMIT),
        depth_scale=render.gradient(render.turbo(np.linspace(0, 1, 17))),
        all_settings=yaml.safe_dump(results["settings"], sort_keys=False, allow_unicode=True),
    )
    write_sheet(frames, path.with_suffix(".png"))


def _charts(results: Mapping[str, Any], colours: Mapping[str, str]) -> list[dict[str, str]]:
    charts = [
        {
            "title": "Error against ε",
            "text": "RMSE in metres; ε = 0 are the clean frames.",
            **themes(lambda axes: _draw_errors(axes, results, colours)),
        }
    ]
    if results["monitor"]:
        charts.append(
            {
                "title": "What the monitor sees",
                "text": "Attacked frames that raise the alarm, against clean ones that do. Dashed:"
                " attacks by one who knows the mask.",
                **themes(lambda axes: _draw_roc(axes, results["monitor"])),
            }
        )
    return charts


def _draw_errors(axes: Any, results: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    for row in results["rows"]:
        cells = {"0": row["clean"], **row["attacked"]}
        points = sorted((float(e), c["rmse_m"]) for e, c in cells.items() if "rmse_m" in c)
        style = "o--" if "†" in row["name"] else "o-"
        if points:
            axes.plot(*zip(*points), style, color=colours[row["name"]], ms=4, label=row["name"])
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ε")
    axes.set_ylabel("RMSE, m")
    legend(axes)


def _draw_roc(axes: Any, monitor: Mapping[str, Any]) -> None:
    shades = dict(zip(sorted({a["eps"] for a in monitor["attacks"]}), PALETTE * 9))
    for attack in monitor["attacks"]:
        false_alarms, detections = curve(monitor["clean"], attack["scores"])
        known = attack["row"] == KNOWN
        label = "" if known else f"ε = {attack['eps']:g}, AUC {attack['auc']:.3f}"
        style = "--" if known else "-"
        x, y = 100 * false_alarms, 100 * detections
        axes.plot(x, y, style, color=shades[attack["eps"]], label=label)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("false alarms, % of the clean frames")
    axes.set_ylabel("detected, % of the attacked")
    legend(axes)
