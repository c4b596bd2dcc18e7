"""Pipeline x data set → results.json: several models side by side on the same frames."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mde_ros.config import ConfigError, PipelineSettings, as_dict, build
from mde_ros.datasets.virtual_scan import VirtualScan
from mde_ros.evaluation.partial import Partial
from mde_ros.evaluation.parts import Job, Parts, find_parts, identity, on_ray, one_by_one
from mde_ros.evaluation.pictures import Model, Picture, pictures_path, save_pictures, take_pictures
from mde_ros.evaluation.results import (
    VERSION,
    EvaluationError,
    latency_summary,
    machine,
    print_table,
    versions,
    write_json,
)
from mde_ros.evaluation.run import EvaluateSettings, Tally, run

Live = Callable[[Any, Mapping[str, Any], dict[str, Any]], None]


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
        dataset: has `len` and, by index, samples with `frame`, `truth_m`, `name` and perhaps
            `moving`; it is read in a thread of its own.
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
    tally = Tally(models, settings.score)
    run(dataset, models, settings, tally, progress, stop)
    return results_of(tally, models, settings, name or getattr(dataset, "name", "data set"))


def results_of(
    tally: Tally, models: Mapping[str, Model], settings: EvaluateSettings, name: str
) -> dict[str, Any]:
    """What results.json holds of a tally.

    Raises:
        EvaluationError: when no frame could be scored.
    """
    scored = len(tally.images)
    if not scored:
        reasons = [f"{n} {reason}" for reason, n in tally.dropped.items()] + tally.problems[:1]
        why = "; ".join(reasons) or "it has no frames"
        raise EvaluationError(f"{name}: no frame could be scored ({why})")
    entries = []
    for model, scorer in tally.scorers.items():
        latencies = [image["latency_ms"] for image in scorer.images]
        entry = {"name": model, "weights_sha256": None, **_identity(models[model])}
        entries.append({**entry, **scorer.result(), "latency_ms": latency_summary(latencies)})
    return {
        "version": VERSION,
        "settings": {"evaluate": as_dict(settings), **_pipeline_settings(models)},
        "data": {"name": name, "frames": scored, "sha256": tally.sha256},
        "models": entries,
        "latency_ms": entries[0]["latency_ms"],
        "frames_in": tally.begun,
        "frames_out": scored,
        "dropped": dict(tally.dropped),
        "problems": tally.problems,
        "interrupted": not tally.is_complete,
        "seconds": round(tally.seconds, 2),
        "speed": {
            "frames_per_s": tally.begun / tally.seconds,
            "models_alone_frames_per_s": 1e3 / sum(tally.alone_ms.values()),
            "share_in_models": tally.inference_s / tally.seconds,
        },
        "machine": machine(),
        "versions": versions(),
    }


def network_threads() -> int:
    """As many as a robot's by default, but for one core that reads and measures meanwhile."""
    return max(1, min(PipelineSettings().threads, (os.cpu_count() or 1) - 1))


def run_evaluate(
    data: str | Sequence[str],
    models: Iterable[str] = ("default",),
    *,
    json_path: str | None = None,
    report: str | None = None,
    settings: EvaluateSettings | Mapping[str, Any] | None = None,
    pipeline: PipelineSettings | Mapping[str, Any] | None = None,
    topics: Mapping[str, Any] | None = None,
    live: Live | None = None,
    resume: bool = False,
    ray: str | None = None,
) -> int:
    """`mde evaluate`: evaluate models on data sets, print the table, write what was asked for.

    Args:
        data: one or more paths that datasets.open_dataset takes, or folders of bags.
        models: shipped names or files.
        json_path: results.json to be written, its pictures beside it as .npz; "-" is stdout.
        report: HTML page to be written.
        settings, pipeline: settings, or mappings of their fields; threads of the network are
            network_threads() if they are not given.
        topics: more arguments of open_dataset, such as a bag's topics.
        live: is given data set, models and results, to measure them in the real node as well.
        resume: go on with what a run left that was ended early, if there is any.
        ray: address of a Ray cluster that evaluates the data sets, or "local".

    Returns:
        0; 1 when a data set failed and others did not; or 130 when Ctrl-C ended it early (what was
        done is written all the same).

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    if not isinstance(settings, EvaluateSettings):
        settings = build(EvaluateSettings, settings or {})
    if not isinstance(pipeline, PipelineSettings):
        pipeline = build(PipelineSettings, {"threads": network_threads(), **(pipeline or {})})
    data = [data] if isinstance(data, str) else list(data)
    paths = find_parts(data)
    to_file = bool(json_path) and json_path != "-"
    if resume and not to_file:
        raise ConfigError("--resume: expected together with --json FILE, beside which it looks")
    if live and (len(paths) > 1 or ray or settings.virtual_scan or settings.scan_scaled):
        raise ConfigError("--live: expected one data set, and the models as the node runs them")
    scan = VirtualScan.parse(settings.virtual_scan) if settings.virtual_scan else None
    job = Job(tuple(models), settings, pipeline, dict(topics or {}), scan)
    loaded = job.load()
    folder = Path(f"{json_path}.partial") if to_file else None
    kept = Partial(paths, folder, identity(job, loaded, paths), resume)
    name = ", ".join(dict.fromkeys(Path(d).resolve().name for d in data))
    with progress_bar(name, len(paths) > 1) as show, until_ctrl_c() as stop:
        if ray:
            on_ray(ray, job, kept, show, stop)
        else:
            one_by_one(job, loaded, kept, show, stop)
    try:
        total, parts = kept.total(loaded, settings.score)
        results = results_of(total, loaded, settings, name)
    except EvaluationError:
        kept.remove()
        raise
    results["interrupted"] = bool(kept.todo)
    if len(paths) > 1:
        results["parts"] = parts
    try:
        if live and not kept.todo:
            live(job.open(paths[0]), loaded, results)
    finally:  # what is done is kept
        _write(results, Parts(job, kept), loaded, json_path, report)
    if not (kept.todo or kept.failed):
        kept.remove()
    elif to_file:
        print("not all is done: the same command with --resume goes on", file=sys.stderr)
    return 130 if kept.todo else int(bool(kept.failed))


def _write(
    results: dict[str, Any],
    dataset: Any,
    models: Mapping[str, Model],
    json_path: str | None,
    report: str | None,
) -> None:
    print_table(results, stderr=json_path == "-")
    pictures: list[Picture] = []
    if report or (json_path and json_path != "-"):
        pictures = take_pictures(dataset, models, results)
    if json_path:
        write_json(json_path, results)
        if json_path != "-":
            save_pictures(pictures_path(json_path), pictures)
    if report:
        from mde_ros.evaluation.report import write_report  # matplotlib takes a second

        write_report([results], pictures, report)


@contextmanager
def progress_bar(label: str, several: bool) -> Iterator[Callable[[float, int], None]]:
    """A bar with the time left on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    unit = TextColumn("data sets" if several else "frames")
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), unit, TextColumn("left"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeLeft(), transient=True, console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def until_ctrl_c() -> Iterator[Callable[[], bool]]:
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
