"""`mde saliency`: how much of an image a depth network needs, Table 1 of the visualization paper.

Hu et al., ICCV 2019 (METHODS 2): for masks G of rising λ, the error of N(x ⊗ M) with the mask M as
it is and with M', which shows a pixel where M is above a threshold, whole; and how sparse M' is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mde_ros import checkpoint
from mde_ros.config import PipelineSettings, as_dict, build, check, setting
from mde_ros.datasets import DatasetError
from mde_ros.evaluation.evaluate import network_threads, progress_bar, until_ctrl_c
from mde_ros.evaluation.opened import Known, OpenPipeline, load_mask, scored_frames, take, target_of
from mde_ros.evaluation.page import need_libraries
from mde_ros.evaluation.parts import Job, find_parts
from mde_ros.evaluation.results import VERSION, EvaluationError, machine, versions, write_json
from mde_ros.evaluation.run import EvaluateSettings, Tally
from mde_ros.metrics import NAMES
from mde_ros.runtime import sha256_of

PICTURES = 3  # frames, evenly spread


@dataclass(frozen=True)
class SaliencySettings:
    """What counts as shown, and which frames are taken."""

    threshold: float = setting(0.025, "M' shows where M is above this", low=0.0, high=1.0)
    target: str = setting(
        "auto",
        "what errors are held against: measured depth, or N's own depth of the whole image; auto:"
        " measured depth where the data have any",
        choices=("auto", "truth", "prediction"),
    )
    frames: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask network G.

    Attributes:
        name: that nobody else in the table has.
        sparseness_weight: λ that it was trained with; None where it does not tell.
    """

    name: str
    network: nn.Module
    path: Path
    sparseness_weight: float | None


def load_masks(files: Sequence[str], n: OpenPipeline) -> list[Mask]:
    """Masks of N in order of λ.

    Raises:
        ModelError, CheckpointError: when one cannot be read or belongs to other weights.
    """
    masks: list[Mask] = []
    for file in files:
        network, path, _ = load_mask(file, n)
        weight = checkpoint.read_tensors(path)[1].get("settings", {}).get("sparseness")
        name = path.stem if weight is None else f"λ = {weight:g}"
        if name in {mask.name for mask in masks}:
            name = f"{name} ({len(masks) + 1}: {path.parent.name}/{path.name})"
        masks.append(Mask(name, network, path, weight))
    return sorted(masks, key=lambda m: (m.sparseness_weight is None, m.sparseness_weight or 0.0))


def mask_data(
    dataset: Any,
    n: OpenPipeline,
    masks: Sequence[Mask],
    settings: SaliencySettings,
    target: str,
    tally: Tally,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    look: Callable[[Known, dict[str, np.ndarray]], None] = lambda known, masks: None,
) -> None:
    """Score N, N(x ⊗ M) and N(x ⊗ M') on the frames of a data set; see scored_frames.

    Args:
        look: called with every frame and its masks M (h, w) by name.
    """
    for known in scored_frames(dataset, n, settings.frames, target, tally, progress, stop):
        seen, shown = known.seen, {}
        with torch.no_grad():
            take(tally, n, "N", n.depth(seen, seen.x)[0, 0], known)
            for mask in masks:
                soft = mask.network(seen.x)
                hard = (soft > settings.threshold).to(soft.dtype)
                depths = n.depth(seen, torch.cat([seen.x * soft, seen.x * hard]))
                image = take(tally, n, f"{mask.name} M", depths[0, 0], known)
                image.update(mean=float(soft.mean()), sparseness=float(hard.mean()))
                take(tally, n, f"{mask.name} M'", depths[1, 0], known)
                shown[mask.name] = soft[0, 0].cpu().numpy()
        look(known, shown)


def cells(masks: Sequence[Mask]) -> list[str]:
    """What the tally calls the columns of the table."""
    return ["N", *(f"{mask.name} {kind}" for mask in masks for kind in ("M", "M'"))]


def table_of(tally: Tally, masks: Sequence[Mask]) -> list[dict[str, Any]]:
    """The rows of the table: the whole image first, then the masks in order of λ."""

    def metrics(cell: str) -> dict[str, float]:
        values = tally.scorers[cell].result()["metrics"]
        return {k: v for k, v in values.items() if k in (*NAMES, "coverage")}

    whole = metrics("N")
    rows = [{"name": "original", "lambda": None, "soft": whole, "hard": whole, "sparseness": 1.0}]
    rows[0]["mean"] = 1.0
    for mask in masks:
        images = tally.scorers[f"{mask.name} M"].images
        rows.append(
            {
                "name": mask.name,
                "lambda": mask.sparseness_weight,
                "file": mask.path.name,
                "weights_sha256": sha256_of(mask.path),
                "soft": metrics(f"{mask.name} M"),
                "hard": metrics(f"{mask.name} M'"),
                "sparseness": float(np.mean([image["sparseness"] for image in images])),
                "mean": float(np.mean([image["mean"] for image in images])),
            }
        )
    return rows


def verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the table says what the paper's does, in words."""
    by_weight = [row for row in rows if row["lambda"] is not None]
    words = []
    for what, values, sign in (
        ("the sparser the mask", [row["sparseness"] for row in by_weight], -1),
        ("the larger the error of N(x ⊗ M')", [r["hard"].get("rmse_m", 0) for r in by_weight], 1),
    ):
        if len(by_weight) > 1:
            rises = bool((sign * np.diff(values) >= 0).all())
            words.append(f"the larger λ, {what}: {'holds' if rises else 'does not hold'}")
    whole = rows[0]["hard"].get("rmse_m")
    for row in rows[1:] if whole else []:
        if "rmse_m" in row["hard"]:
            more = 100 * (row["hard"]["rmse_m"] / whole - 1)
            shown = f"a mask of {row['name']} shows {100 * row['sparseness']:.0f} % of the pixels"
            words.append(f"{shown}, RMSE {more:+.0f} %")
    return words


def run_saliency(
    data: Sequence[str],
    masks: Sequence[str],
    model: str = "default",
    *,
    out: str = "saliency",
    json_path: str | None = None,
    settings: Mapping[str, Any] | None = None,
    pipeline: Mapping[str, Any] | None = None,
    topics: Mapping[str, Any] | None = None,
) -> int:
    """Hold masks against each other: print the table, write saliency.json, .html and .png.

    Args:
        data: one or more paths that datasets.open_dataset takes, or folders of bags.
        masks: checkpoints of mask networks of N.
        model: N, a shipped name or checkpoint.
        json_path: saliency.json once more; "-" is stdout.
        settings, pipeline: fields of SaliencySettings and PipelineSettings.
        topics: more arguments of open_dataset, such as a bag's topics.

    Returns:
        0; or 130 when Ctrl-C ended it early (what was done is written all the same).

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    from mde_ros.evaluation.saliency_report import Looked, write_saliency_report

    need_libraries()
    chosen = build(SaliencySettings, settings or {})
    run_by = build(PipelineSettings, {"threads": network_threads(), **(pipeline or {})})
    run_by = replace(run_by, model=model)
    job = Job((model,), chosen.frames, run_by, dict(topics or {}))
    n = OpenPipeline(run_by)
    found = load_masks(masks, n)
    datasets = [job.open(path) for path in find_parts(data)]
    target = target_of(datasets, chosen.frames, chosen.target)
    name = ", ".join(dict.fromkeys(Path(d).resolve().name for d in data))
    total = Tally(cells(found), chosen.frames.score)
    every = sum(len(chosen.frames.indices(len(d))) for d in datasets)
    looked = Looked(n, every, PICTURES, chosen.threshold)
    begun, problems = 0, []
    with progress_bar(name, False) as show, until_ctrl_c() as stop:
        for dataset in datasets:
            tally = Tally(cells(found), chosen.frames.score)

            def shown(done: int, _: int, before: int = begun) -> None:
                show(before + done, every)

            try:
                mask_data(dataset, n, found, chosen, target, tally, shown, stop, looked)
            except (DatasetError, EvaluationError, OSError) as error:
                problems.append(str(error))
            begun += tally.begun
            total.merge(tally.state())
    if not total.images:
        why = "; ".join(problems + [f"{n} {reason}" for reason, n in total.dropped.items()])
        raise EvaluationError(f"{name}: no frame could be scored ({why or 'it has no frames'})")
    rows = table_of(total, found)
    results = {
        "version": VERSION,
        "settings": {"saliency": as_dict(chosen), "pipeline": as_dict(run_by)},
        "data": {"name": name, "frames": len(total.images), "sha256": total.sha256},
        "target": target,
        "model": {"name": n.name, "weights_sha256": n.sha256},
        "rows": rows,
        "verdict": verdict(rows),
        "frames_in": total.begun,
        "frames_out": len(total.images),
        "dropped": dict(total.dropped),
        "problems": problems + total.problems,
        "interrupted": begun < every,
        "seconds": round(total.seconds, 1),
        "machine": machine(),
        "versions": versions(),
    }
    print_saliency(results, stderr=json_path == "-")
    written = Path(out) / "saliency.json"
    for path in dict.fromkeys((str(written), json_path or str(written))):
        write_json(path, results)
    write_saliency_report(results, looked.frames, written.with_suffix(".html"))
    print(f"wrote {written}, {written.with_suffix('.html')} and .png", file=sys.stderr)
    return 130 if results["interrupted"] and not problems else int(bool(problems))


def print_saliency(results: Mapping[str, Any], stderr: bool = False) -> None:
    """Print the table and what it means."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=stderr)
    console.print(
        f"{results['data']['name']}: {results['frames_out']} frames, RMSE in m", highlight=False
    )
    table = Table("", "RMSE (M)", "RMSE (M')", "sparseness", "mean of M")
    for row in results["rows"]:
        errors = [f"{row[kind].get('rmse_m', float('nan')):.3f}" for kind in ("soft", "hard")]
        table.add_row(row["name"], *errors, f"{row['sparseness']:.3f}", f"{row['mean']:.3f}")
    console.print(table)
    for sentence in results["verdict"]:
        console.print(f"{sentence[0].upper()}{sentence[1:]}.", highlight=False)
    for problem in results["problems"]:
        console.print(problem, style="red", markup=False, highlight=False)
