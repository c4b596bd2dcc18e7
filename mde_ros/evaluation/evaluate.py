"""Pipeline x data set → results.json: several models side by side on the same frames."""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.config import PipelineSettings, as_dict, build, check, setting
from mde_ros.evaluation.measure import ScoreSettings, counted
from mde_ros.evaluation.pictures import (
    Model,
    Picture,
    pictures_path,
    rectified_truth,
    save_pictures,
    take_pictures,
)
from mde_ros.evaluation.results import (
    VERSION,
    EvaluationError,
    latency_summary,
    machine,
    print_table,
    versions,
    write_json,
)
from mde_ros.evaluation.score import Scorer
from mde_ros.pipeline import DepthPipeline


@dataclass(frozen=True)
class EvaluateSettings:
    """Which frames of a data set are taken, and what counts."""

    last: int = setting(0, "take the last N frames only, 0 = all", low=0)
    max_frames: int = setting(0, "take at most N frames, evenly spread, 0 = all", low=0)
    score: ScoreSettings = field(default_factory=ScoreSettings)

    def __post_init__(self) -> None:
        check(self)

    def indices(self, length: int) -> range:
        """Which of a data set's frames are taken, in order."""
        start = max(0, length - self.last) if self.last else 0
        step = -(-(length - start) // self.max_frames) if self.max_frames else 1
        return range(start, length, max(1, step))


def load_models(names: Iterable[str], settings: PipelineSettings) -> dict[str, DepthPipeline]:
    """Pipelines by the name shown in tables; a name that comes twice gets a number.

    Raises:
        runtime.ModelError: when a model cannot be found, read or run as asked.
    """
    out: dict[str, DepthPipeline] = {}
    for model in names:
        pipeline = DepthPipeline(dataclasses.replace(settings, model=model))
        stem = name = pipeline.runtime.spec.name or pipeline.runtime.path.stem
        while name in out:
            name = f"{stem} {len(out) + 1}"
        out[name] = pipeline
    return out


def evaluate(
    dataset: Any,
    models: Mapping[str, Model],
    settings: EvaluateSettings | None = None,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run every model on the same frames and score it against the truth.

    Args:
        dataset: has `len` and, by index, samples with `frame`, `truth_m` and `name`.
        models: name → pipeline, or any callable from Frame to Prediction.
        settings: which frames, and what counts.
        name: what the data set is called; its own `name` otherwise.
        progress: called with (frames begun, frames in all).
        stop: asked before every frame; true ends the run and keeps what is done.

    Returns:
        What results.json holds. A frame that cannot be read, or has no truth that counts, is
        counted in `dropped` (and told in `problems`) and left out for all models. Latencies are
        those of the model's call.

    Raises:
        EvaluationError: when no frame could be scored.
        ValueError: when a truth is of another size than its image.
    """
    settings = settings or EvaluateSettings()
    indices = settings.indices(len(dataset))
    scorers = {model: Scorer(settings.score) for model in models}
    dropped: Counter[str] = Counter()
    digest = hashlib.sha256()
    taken: list[int] = []
    problems: list[str] = []
    seen, started = 0, time.monotonic()
    order = list(models)
    for i in indices:
        if stop():
            break
        if progress:
            progress(seen, len(indices))
        seen += 1
        try:
            sample = dataset[i]
        except (ValueError, OSError) as error:
            dropped["unreadable"] += 1
            problems += [str(error)] if len(problems) < 20 else []
            continue
        digest.update(_digest(sample))
        truth_m = rectified_truth(sample)
        if truth_m is None or not counted(truth_m, settings.score).any():
            dropped["no truth"] += 1
            continue
        if not taken:  # the first call of a model allocates; it is not what a robot sees
            for model in order:
                models[model](sample.frame)
        for model in order:
            before = time.perf_counter()
            prediction = models[model](sample.frame)
            latency_ms = 1e3 * (time.perf_counter() - before)
            image = scorers[model].add(
                sample.name, prediction.depth, truth_m, sample.frame.stamp_ns
            )
            image.update(index=i, latency_ms=latency_ms)
        order = order[1:] + order[:1]  # no model always comes first
        taken.append(i)
    if not taken:
        reasons = [f"{n} {reason}" for reason, n in dropped.items()] + problems[:1]
        why = "; ".join(reasons) or "it has no frames"
        raise EvaluationError(f"{name or 'data set'}: no frame could be scored ({why})")

    entries = []
    for model, scorer in scorers.items():
        latencies = [image["latency_ms"] for image in scorer.images]
        entry = {"name": model, "weights_sha256": None, **_identity(models[model])}
        entries.append({**entry, **scorer.result(), "latency_ms": latency_summary(latencies)})
    return {
        "version": VERSION,
        "settings": {"evaluate": as_dict(settings), **_pipeline_settings(models)},
        "data": {
            "name": name or getattr(dataset, "name", "data set"),
            "frames": len(taken),
            "sha256": digest.hexdigest(),
        },
        "models": entries,
        "latency_ms": entries[0]["latency_ms"],
        "frames_in": seen,
        "frames_out": len(taken),
        "dropped": dict(dropped),
        "problems": problems,
        "interrupted": seen < len(indices),
        "seconds": round(time.monotonic() - started, 2),
        "machine": machine(),
        "versions": versions(),
    }


def run_evaluate(
    data: str,
    models: Iterable[str] = ("default",),
    *,
    json_path: str | None = None,
    report: str | None = None,
    settings: EvaluateSettings | Mapping[str, Any] | None = None,
    pipeline: PipelineSettings | Mapping[str, Any] | None = None,
    topics: Mapping[str, Any] | None = None,
    live: Callable[[Any, Mapping[str, DepthPipeline], dict[str, Any]], None] | None = None,
) -> int:
    """`mde evaluate`: evaluate models on a data set, print the table, write what was asked for.

    Args:
        data: path that datasets.open_dataset takes.
        models: shipped names or files.
        json_path: results.json to be written, its pictures beside it as .npz; "-" is stdout.
        report: HTML page to be written.
        settings, pipeline: settings, or mappings of their fields.
        topics: more arguments of open_dataset, such as a bag's topics.
        live: is given data set, models and results, to measure them in the real node as well.

    Returns:
        0, or 130 when Ctrl-C ended it early (what was done is written all the same).

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from mde_ros.datasets import open_dataset

    if not isinstance(settings, EvaluateSettings):
        settings = build(EvaluateSettings, settings or {})
    if not isinstance(pipeline, PipelineSettings):
        pipeline = build(PipelineSettings, pipeline or {})
    dataset = open_dataset(data, **(topics or {}))
    pipelines = load_models(models, pipeline)
    label = Path(data).resolve().name
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeLeft())
    with Progress(*columns, transient=True, console=_stderr()) as bar, _ctrl_c() as stop:
        task = bar.add_task(label, total=None)
        results = evaluate(
            dataset,
            pipelines,
            settings,
            label,
            lambda done, total: bar.update(task, completed=done, total=total),
            stop,
        )
    try:
        if live and not results["interrupted"]:
            live(dataset, pipelines, results)
    finally:  # what is done is kept
        _write(results, dataset, pipelines, json_path, report)
    return 130 if results["interrupted"] else 0


def _write(
    results: dict[str, Any],
    dataset: Any,
    pipelines: Mapping[str, DepthPipeline],
    json_path: str | None,
    report: str | None,
) -> None:
    print_table(results, stderr=json_path == "-")
    pictures: list[Picture] = []
    if report or (json_path and json_path != "-"):
        pictures = take_pictures(dataset, pipelines, results)
    if json_path:
        write_json(json_path, results)
        if json_path != "-":
            save_pictures(pictures_path(json_path), pictures)
    if report:
        from mde_ros.evaluation.report import write_report  # matplotlib takes a second

        write_report([results], pictures, report)


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second one interrupts as usual."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _digest(sample: Any) -> bytes:
    digest, camera = hashlib.sha256(), sample.frame.camera
    for array in (sample.frame.image, camera.K, camera.D, sample.frame.points, sample.truth_m):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _identity(model: Any) -> dict[str, Any]:
    runtime = getattr(model, "runtime", None)
    if runtime is None:
        return {}
    return {
        "weights_sha256": runtime.sha256,
        "file": runtime.path.name,
        "runtime": runtime.name,
        "device": runtime.device,
        "metric": runtime.spec.metric,
        "focal_px": runtime.spec.focal_px,
    }


def _pipeline_settings(models: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the pipelines, which differ in their model only."""
    for model in models.values():
        if isinstance(getattr(model, "settings", None), PipelineSettings):
            values = as_dict(model.settings)
            values.pop("model")
            return {"pipeline": values}
    return {}
