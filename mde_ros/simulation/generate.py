"""Many clips by many processes: the same for a seed whatever their number, resumable."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mde_ros.simulation.clip import record_clip
from mde_ros.simulation.render import gl_context


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    Args:
        rooms, streets: clips of each kind.
        frames: frames of one clip.
        size: (width, height) in pixels.
        seed: the same seed gives the same clips.
        jobs: processes; None for one per core.
    """

    rooms: int = 200
    streets: int = 50
    frames: int = 16
    size: tuple[int, int] = (320, 240)
    seed: int = 0
    jobs: int | None = None

    def __post_init__(self):
        for name in ("rooms", "streets", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, value in (("frames", self.frames), ("jobs", self.jobs or 1)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.size) != 2 or min(self.size) < 16:
            raise ValueError(f"size must be (width, height), both at least 16, got {self.size}")


def generate(
    out: str | Path,
    rooms: int = SimulationSettings.rooms,
    streets: int = SimulationSettings.streets,
    frames_per_clip: int = SimulationSettings.frames,
    size: tuple[int, int] = SimulationSettings.size,
    seed: int = SimulationSettings.seed,
    jobs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the clips that `out` does not hold yet; the folders of all of them.

    Args:
        progress: called with the clips that are done and the clips in all, first at the start.

    Raises:
        SimulationUnavailable: without MuJoCo or OpenGL.
        ValueError: when `out` holds clips of another seed, size or length.
    """
    settings = SimulationSettings(rooms, streets, frames_per_clip, (size[0], size[1]), seed, jobs)
    gl_context(*settings.size)  # fail here, once, with a remedy
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    check_same_data(out, settings)
    clips = interleaved(settings)
    folders = [out / f"{kind}_{index:06d}" for kind, index in clips]
    todo = [
        (out, settings.seed, index, kind, settings.frames, settings.size)
        for (kind, index), folder in zip(clips, folders)
        if not folder.exists()
    ]
    done = len(clips) - len(todo)
    progress(done, len(clips))
    count = min(settings.jobs or os.cpu_count() or 1, max(1, len(todo)))
    if count == 1:
        for job in todo:
            record(job)
            done += 1
            progress(done, len(clips))
        return folders
    with multiprocessing.get_context("spawn").Pool(count, ignore_interrupt) as pool:
        try:
            for _ in pool.imap_unordered(record, todo):
                done += 1
                progress(done, len(clips))
        except BaseException:
            pool.terminate()
            pool.join()
            for partial in out.glob(".*.partial"):
                shutil.rmtree(partial, ignore_errors=True)
            raise
    return folders


def record(job: tuple) -> int:
    return record_clip(*job)


def ignore_interrupt() -> None:
    """Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def interleaved(settings: SimulationSettings) -> list[tuple[str, int]]:
    """All clips as (kind, index), streets spread evenly among rooms."""
    clips = [("room", index) for index in range(settings.rooms)]
    clips += [("street", index) for index in range(settings.streets)]
    counts = {"room": settings.rooms, "street": settings.streets}
    return sorted(clips, key=lambda clip: ((clip[1] + 0.5) / counts[clip[0]], clip[0]))


def check_same_data(out: Path, settings: SimulationSettings) -> None:
    """Refuse to mix clips of different settings in one folder; remember the settings."""
    file = out / "simulation.json"
    wanted = {
        key: value for key, value in asdict(settings).items() if key in ("frames", "size", "seed")
    }
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
            generate(
                out, settings.rooms, settings.streets, settings.frames, settings.size,
                settings.seed, settings.jobs,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print(f"stopped; complete clips are kept in {out}, the same command goes on")
        return 130
    return 0
