"""Many clips by many processes: the same for a seed whatever their number, resumable."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from mde_ros.simulation.clip import PARTIAL, SimulationSettings, clip_name, record_clip
from mde_ros.simulation.render import gl_context


def generate(
    out: str | Path,
    rooms: int = SimulationSettings.rooms,
    streets: int = SimulationSettings.streets,
    frames_per_clip: int = SimulationSettings.frames,
    size: tuple[int, int] = SimulationSettings.size,
    seed: int = SimulationSettings.seed,
    jobs: int | None = SimulationSettings.jobs,
    rate_hz: float | None = SimulationSettings.rate_hz,
    bag: bool = SimulationSettings.bag,
    drives: int = SimulationSettings.drives,
    closeups: int = SimulationSettings.closeups,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the clips that `out` does not hold yet; the folders of all of them.

    Args:
        progress: called with the clips that are done and the clips in all, first at the start.
        others: see SimulationSettings.

    Raises:
        SimulationUnavailable: without MuJoCo or OpenGL.
        ValueError: when `out` holds clips of another seed, size, length or rate.
    """
    settings = SimulationSettings(
        rooms, streets, frames_per_clip, (size[0], size[1]), seed, jobs, rate_hz, bag, drives,
        closeups,
    )  # fmt: skip
    gl_context(*settings.size)  # fail here, once, with a remedy
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    check_same_data(out, settings)
    clips = interleaved(settings)
    todo = [clip for clip in clips if not is_complete(out, clip, settings)]
    done = len(clips) - len(todo)
    progress(done, len(clips))
    try:
        for _ in record_all(out, settings, todo):
            done += 1
            progress(done, len(clips))
    finally:
        shutil.rmtree(out / PARTIAL, ignore_errors=True)
    return [out / clip_name(*clip) for clip in clips]


def record_all(
    out: Path, settings: SimulationSettings, clips: list[tuple[str, int]]
) -> Iterator[None]:
    """Record clips, by many processes where there are many; yields after each."""
    count = min(settings.jobs or os.cpu_count() or 1, len(clips))
    if count <= 1:
        for clip in clips:
            record(out, settings, clip)
            yield
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, ignore_interrupt) as pool:
        jobs = [pool.submit(record, out, settings, clip) for clip in clips]
        try:
            for job in as_completed(jobs):
                job.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)  # the clips at work are finished


def record(out: Path, settings: SimulationSettings, clip: tuple[str, int]) -> None:
    kind, index = clip
    folder = out / clip_name(kind, index)
    if not folder.exists():
        record_clip(out, settings, kind, index)
    if settings.bag:
        from mde_ros.simulation.bag import write_bag

        write_bag(folder, folder.with_suffix(".mcap"))


def is_complete(out: Path, clip: tuple[str, int], settings: SimulationSettings) -> bool:
    folder = out / clip_name(*clip)
    return folder.exists() and (not settings.bag or folder.with_suffix(".mcap").exists())


def ignore_interrupt() -> None:
    """Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def interleaved(settings: SimulationSettings) -> list[tuple[str, int]]:
    """All clips as (kind, index), every kind spread evenly among the others."""
    counts = {
        "room": settings.rooms,
        "street": settings.streets,
        "drive": settings.drives,
        "closeup": settings.closeups,
    }
    clips = [(kind, index) for kind, count in counts.items() for index in range(count)]
    return sorted(clips, key=lambda clip: ((clip[1] + 0.5) / counts[clip[0]], clip[0]))


def check_same_data(out: Path, settings: SimulationSettings) -> None:
    """Refuse to mix clips of different settings in one folder; remember the settings."""
    file = out / "simulation.json"
    everything = asdict(settings)
    wanted = {key: everything[key] for key in ("seed", "size", "frames", "rate_hz")}
    wanted["size"] = list(settings.size)
    if file.exists():
        held = json.loads(file.read_text())
        for key, value in wanted.items():
            if held.get(key) != value:
                raise ValueError(
                    f"{out} holds clips of {key} {held.get(key)}, wanted {value}: "
                    "take another folder or the same settings"
                )
    else:
        file.write_text(json.dumps(wanted, indent=1) + "\n")


def simulate(settings: SimulationSettings, out: str | Path) -> int:
    """`generate` with a progress bar for a terminal; the exit status (130 after Ctrl-C)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("clips"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("simulate", total=None)
            what = asdict(settings)
            generate(
                out,
                frames_per_clip=what.pop("frames"),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                **what,
            )
    except KeyboardInterrupt:
        text = f"stopped; complete clips are kept in {out}, the same command goes on"
        console.print(text, soft_wrap=True)
        return 130
    return 0
