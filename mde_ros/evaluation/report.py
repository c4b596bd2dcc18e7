"""results.json and its pictures → one self-contained HTML page for a person who did not run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mde_ros.evaluation import render
from mde_ros.evaluation.page import PALETTE, legend, themes, write_page
from mde_ros.evaluation.pictures import Picture, load_pictures, pictures_path
from mde_ros.evaluation.results import COLUMNS, ResultsError, load_results
from mde_ros.metrics import is_measured

PICTURE_WIDTH = 480


def write_report(
    results: Sequence[Mapping[str, Any]],
    pictures: Iterable[Picture],
    path: str | Path,
    title: str = "",
) -> None:
    """Write the report of one or more results dictionaries.

    Args:
        results: as `evaluate` returns and results.json holds them.
        pictures: frames to be shown, as take_pictures returns them.
        path: HTML file to be written; it needs no other file and no network.
        title: heading; made from the data set and models otherwise.

    Raises:
        ResultsError: when the file cannot be written, or a library that draws is missing.
    """
    rows = _rows(results)
    write_page(
        path,
        "report.html.j2",
        title=title or f"Depth on {', '.join(dict.fromkeys(r['data']['name'] for r in results))}",
        results=results,
        rows=rows,
        first=rows[0],
        columns=_columns(rows),
        best=_best(rows),
        charts=_charts(rows),
        pictures=[_shown(p) for p in pictures],
        depth_scale=render.gradient(render.turbo(np.linspace(0, 1, 17))),
        error_scale=render.gradient(render.diverging(np.linspace(-1, 1, 13))),
        error_limit=round(100 * render.ERROR_LIMIT),
        settings=[yaml.safe_dump(r["settings"], sort_keys=False) for r in results],
    )


def run_report(files: Sequence[str], *, output: str = "report.html") -> int:
    """`mde report results.json…`: the page of results that lie on disk, pictures included.

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    results, pictures = [], []
    for file in files:
        results.append(load_results(file))
        if pictures_path(file).is_file():
            pictures += load_pictures(pictures_path(file))
    if not results:
        raise ResultsError("report: expected at least one results.json")
    write_report(results, pictures, output)
    print(f"wrote {output}")
    return 0


def _rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per data set and model, each with its colour."""
    several = len({r["data"]["name"] for r in results}) > 1
    rows: list[dict[str, Any]] = []
    for result in results:
        for model in result["models"]:
            # Where a model does not tell its latency it is the only one; none is told by {}.
            model = {**model, "latency_ms": model.get("latency_ms", result["latency_ms"])}
            label = f"{model['name']} · {result['data']['name']}" if several else model["name"]
            colour = PALETTE[len(rows) % len(PALETTE)]
            rows.append({"label": label, "colour": colour, "model": model, "result": result})
    if not rows:
        raise ResultsError("report: the results hold no model")
    return rows


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], float]:
    """The best value of each column on the same data, as it is rounded in the table."""
    best = {}
    for data in {r["result"]["data"]["sha256"] for r in rows}:
        same = [r["model"] for r in rows if r["result"]["data"]["sha256"] == data]
        for kind in ("metrics", "median_scaled"):
            for key, _, better, decimals in COLUMNS:
                values = [model[kind].get(key) for model in same]
                known = {round(v, decimals) for v in values if v is not None}
                if len(known) > 1:
                    best[data, kind, key] = min(known) if better == "lower" else max(known)
    return best


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple]:
    """Columns that hold anything; coverage only where it is not full."""
    shown = []
    for column in COLUMNS:
        values = [r["model"]["metrics"].get(column[0]) for r in rows]
        known = [v for v in values if v is not None]
        if known and (column[0] != "coverage" or min(known) < 0.9995):
            shown.append(column)
    return shown


def _shown(picture: Picture) -> dict[str, Any]:
    """A picture ready for the template: everything a data URI, one depth scale for all maps."""
    known = picture.truth_m
    if known is None or not is_measured(known).any():
        known = next(iter(picture.predictions_m.values()))
    values = known[is_measured(known)]
    near, middle, far = np.percentile(values, [2, 50, 98]) if values.size else (0.0, 1.0, 2.0)
    height, width = picture.image.shape[:2]
    size = (PICTURE_WIDTH, round(PICTURE_WIDTH * height / width))

    def column(label: str, depth_m: np.ndarray) -> dict[str, Any]:
        clouds = render.cloud_pictures(
            depth_m, picture.image, picture.camera, (float(middle), float(far)), size
        )
        depth = render.depth_picture(depth_m, near, far)
        shown = {"depth": render.data_uri(depth, PICTURE_WIDTH)}
        shown.update(zip(("orbit", "above"), map(render.data_uri, clouds)))
        return {"label": label, **shown}

    columns = []
    if picture.truth_m is not None:
        columns.append(column("measured", picture.truth_m))
    for name, depth_m in picture.predictions_m.items():
        entry = column(name, depth_m)
        if picture.truth_m is not None:
            error = render.error_picture(depth_m, picture.truth_m)
            entry["error"] = render.data_uri(error, PICTURE_WIDTH)
            valid = is_measured(depth_m) & is_measured(picture.truth_m)
            if valid.any():
                off = np.abs(depth_m[valid] - picture.truth_m[valid])
                entry["abs_rel"] = float((off / picture.truth_m[valid]).mean())
                entry["mae_m"] = float(off.mean())
        columns.append(entry)
    image, points = picture.image, picture.points
    if points is not None:
        image = render.scan_picture(image, points, picture.camera, near, far)
    return {
        "title": picture.title,
        "name": picture.name,
        "image": render.data_uri(image, PICTURE_WIDTH),
        "caption": "camera image" if points is None else "camera image and scan",
        "columns": columns,
        "near": f"{near:.1f}",
        "far": f"{far:.1f}",
        "aspect": f"{size[0]} / {size[1]}",
    }


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every chart that the results hold the numbers for."""
    out = []

    def add(title: str, text: str, key: str, draw: Callable[[Any], None]) -> None:
        if any(r["model"].get(key) for r in rows):
            out.append({"title": title, "text": text, **themes(draw)})

    add(
        "Error against distance",
        "Mean relative error of pixels by their measured distance; bars: share of the pixels.",
        "by_distance",
        lambda axes: _draw_distance(axes, rows),
    )
    add(
        "Too near or too far",
        "Mean of predicted minus measured distance, in metres; below zero is seen too near.",
        "by_distance",
        lambda axes: _draw_bias(axes, rows),
    )
    add(
        "Frame by frame",
        "Relative error of every frame in order: jumps are scenes that are hard for a model.",
        "per_image",
        lambda axes: _draw_frames(axes, rows),
    )
    add(
        "Scale, frame by frame",
        "Factor that would make the median of a frame right: 1 is right, above 1 is seen too near.",
        "per_image",
        lambda axes: _draw_scale(axes, rows),
    )
    add(
        "Error by image height",
        "Mean relative error from the top of the image (ceiling, sky) to its bottom (floor).",
        "by_row",
        lambda axes: _draw_rows(axes, rows),
    )
    add(
        "Latency",
        "How often a frame took how many milliseconds; dashed: 95 of 100 frames are faster.",
        "latency_ms",
        lambda axes: _draw_latency(axes, rows),
    )
    return out


def _draw_distance(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    bands = rows[0]["model"].get("by_distance") or []
    total = sum(b["pixels"] for b in bands) or 1
    share = axes.twinx()
    for b in bands:
        width = b["to_m"] - b["from_m"]
        height = 100 * b["pixels"] / total
        share.bar(b["from_m"], height, width, align="edge", color="#8a94a6", alpha=0.25, lw=0)
    share.set_ylim(0, 150)
    share.set_axis_off()
    for row in rows:
        bands = _enough(row["model"].get("by_distance"))
        x = [(b["from_m"] + b["to_m"]) / 2 for b in bands]
        y = [100 * b["abs_rel"] for b in bands]
        axes.plot(x, y, "o-", color=row["colour"], lw=1.8, ms=4, label=row["label"])
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(b["to_m"] for r in rows for b in _enough(r["model"].get("by_distance"))))
    axes.set_xlabel("measured distance, m")
    axes.set_ylabel("relative error, %")
    axes.set_zorder(share.get_zorder() + 1)
    axes.patch.set_visible(False)
    legend(axes)


def _draw_bias(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        bands = _enough(row["model"].get("by_distance"))
        x = [(b["from_m"] + b["to_m"]) / 2 for b in bands]
        y = [b["bias_m"] for b in bands]
        axes.plot(x, y, "o-", color=row["colour"], lw=1.8, ms=4, label=row["label"])
    axes.axhline(0, lw=1, color=axes.xaxis.label.get_color())
    axes.set_xlim(left=0)
    axes.set_xlabel("measured distance, m")
    axes.set_ylabel("predicted − measured, m")
    legend(axes)


def _draw_frames(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    _draw_series(axes, rows, "abs_rel", 100)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("relative error, %")


def _draw_scale(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.axhline(1, lw=1, color=axes.xaxis.label.get_color())
    _draw_series(axes, rows, "scale", 1)
    axes.set_ylabel("measured / predicted")


def _draw_series(axes: Any, rows: Sequence[Mapping[str, Any]], key: str, unit: float) -> None:
    for row in rows:
        images = [i for i in row["model"].get("per_image", []) if "abs_rel" in i]
        x = [i.get("index", n) for n, i in enumerate(images)]
        y = [unit * i[key] for i in images]
        style = "o-" if len(x) < 40 else "-"
        axes.plot(x, y, style, color=row["colour"], lw=1.4, ms=3, label=row["label"])
    axes.set_xlabel("frame")
    axes.locator_params(axis="x", integer=True)
    legend(axes)


def _draw_rows(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        strips = [s for s in row["model"].get("by_row", []) if s["pixels"]]
        y = [50 * (s["from_row"] + s["to_row"]) for s in strips]
        x = [100 * s["abs_rel"] for s in strips]
        axes.plot(x, y, "o-", color=row["colour"], lw=1.8, ms=4, label=row["label"])
    axes.set_ylim(100, 0)
    axes.set_xlim(left=0)
    axes.set_yticks([0, 25, 50, 75, 100], ["top", "25 %", "50 %", "75 %", "bottom"])
    axes.set_xlabel("relative error, %")
    legend(axes)


def _draw_latency(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    shown = {}
    for row in rows:
        latency = row["model"].get("latency_ms") or {}
        if "histogram" in latency and id(latency) not in shown:
            shown[id(latency)] = latency
            edges, counts = latency["histogram"]["edges_ms"], latency["histogram"]["counts"]
            share = 100 * np.array(counts) / max(sum(counts), 1)
            axes.stairs(share, edges, fill=True, color=row["colour"], alpha=0.35)
            axes.stairs(share, edges, color=row["colour"], lw=1.4, label=row["label"])
            axes.axvline(latency["p95"], color=row["colour"], ls="--", lw=1.2)
    axes.set_xlabel("milliseconds per frame")
    axes.set_ylabel("frames, %")
    legend(axes)


def _enough(bands: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Bands that hold at least a thousandth of all pixels: the others say nothing."""
    total = sum(b["pixels"] for b in bands or ())
    return [b for b in bands or () if b["pixels"] * 1000 >= total]
