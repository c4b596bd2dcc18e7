"""Several data sets, such as a folder of bags: each by itself, here or on a Ray cluster, and kept.

What is done lies beside results.json until all of it is, so that --resume goes on from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from mde_ros.config import PipelineSettings, as_dict
from mde_ros.datasets import DatasetError, is_bag, is_rgbd, open_dataset
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.evaluation.baseline import ScanScaled
from mde_ros.evaluation.pictures import Model
from mde_ros.evaluation.results import (
    VERSION,
    EvaluationError,
    ResultsError,
    versions,
    write_atomically,
)
from mde_ros.evaluation.run import EvaluateSettings, Tally, run
from mde_ros.pipeline import DepthPipeline

State = dict[str, Any]  # of a Tally, and `problem` in words where its data set failed


def find_parts(data: Iterable[str | Path]) -> list[Path]:
    """The data sets at these paths; a folder of bags stands for all of them, in order of names."""
    parts: list[Path] = []
    for path in (Path(d).expanduser().resolve() for d in data):
        inside = sorted(path.iterdir()) if path.is_dir() and not is_rgbd(path) else []
        bags = [p for p in inside if is_bag(p)]
        # A folder with a single file may be what `ros2 bag record` wrote, without its metadata.
        itself = (path / "metadata.yaml").is_file() or (len(bags) == 1 and is_bag(path))
        parts += [path] if itself or not bags else bags
    return list(dict.fromkeys(parts))


@dataclass(frozen=True)
class Job:
    """What is done with every data set, the same on every machine.

    Attributes:
        models: shipped names or files.
        settings, pipeline: which frames, what counts, and how it is run.
        options: more arguments of open_dataset, such as a bag's topics.
        scan: to be cut out of the truth.
    """

    models: tuple[str, ...]
    settings: EvaluateSettings
    pipeline: PipelineSettings
    options: Mapping[str, Any]
    scan: VirtualScan | None = None

    def open(self, path: str | Path) -> Any:
        """The data set at a path, with a virtual scan if there shall be one.

        Raises:
            DatasetError: when it cannot be read.
        """
        dataset = open_dataset(path, **self.options)
        return WithScan(dataset, self.scan) if self.scan else dataset

    def load(self) -> dict[str, Model]:
        """All models by the name shown in tables; a name that comes twice gets a number.

        Raises:
            runtime.ModelError: when a model cannot be found, read or run as asked.
        """
        out: dict[str, Model] = {}
        for model in self.models:
            pipeline = DepthPipeline(dataclasses.replace(self.pipeline, model=model))
            stem = name = pipeline.runtime.spec.name or pipeline.runtime.path.stem
            while name in out:
                name = f"{stem} {len(out) + 1}"
            out[name] = pipeline
            if self.settings.scan_scaled and not pipeline.runtime.spec.takes_points:
                out[f"{name} x median(scan / {name})"] = ScanScaled(pipeline)
        return out


def evaluate_part(
    job: Job,
    path: str | Path,
    state: Mapping[str, Any] | None = None,
    models: Mapping[str, Model] | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    keep: Callable[[State], None] | None = None,
) -> State:
    """Evaluate one data set, or the rest of it; what fails is told in the state and loses nothing.

    Args:
        state: of the frames that are done already.
        models: what `job.load` gives, where they are loaded already.
        progress, stop, keep: as `run` takes them, but that `keep` is given the state.
    """
    models = models or job.load()
    tally = Tally(models, job.settings.score)
    if state:
        tally.merge(state)
    problem = {}
    try:
        run(
            job.open(path),
            models,
            job.settings,
            tally,
            progress,
            stop,
            keep and (lambda: keep(tally.state())),
        )
    except (DatasetError, EvaluationError, OSError) as error:
        problem = {"problem": str(error)}
    return {**tally.state(), **problem}


def one_by_one(
    job: Job,
    models: Mapping[str, Model],
    kept: Partial,
    progress: Callable[[float, int], None],
    stop: Callable[[], bool],
) -> None:
    """Evaluate data sets one after the other; `kept` holds what came of each."""
    paths = kept.paths
    for done, path in enumerate(paths):
        if kept.is_done(path):
            continue
        if stop():
            return

        def show(begun: int, frames: int, done: int = done) -> None:
            if len(paths) == 1:
                progress(begun, frames)
            else:
                progress(done + begun / max(1, frames), len(paths))

        def keep(state: State, path: Path = path) -> None:
            kept.put(path, state)

        kept.put(path, evaluate_part(job, path, kept.get(path), models, show, stop, keep))


def on_ray(
    address: str,
    job: Job,
    kept: Partial,
    progress: Callable[[float, int], None],
    stop: Callable[[], bool],
) -> None:
    """The same, every data set a task of a Ray cluster, whose machines see the same paths.

    Args:
        address: of the cluster's head, or "local" for one on this machine.

    Raises:
        ImportError: when Ray is not installed.
        EvaluationError: when there is no cluster at the address.
    """
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EvaluationError(f"--ray: no cluster at {address} ({error})") from None
    try:
        gpus = float(job.pipeline.device.startswith("cuda"))  # Ray hides them from other tasks
        task = ray.remote(num_cpus=max(1, job.pipeline.threads), num_gpus=gpus)(evaluate_part)
        todo = [p for p in kept.paths if not kept.is_done(p)]
        running = {task.remote(job, path, kept.get(path)): path for path in todo}
        while running and not stop():
            progress(len(kept.paths) - len(running), len(kept.paths))
            for done in ray.wait(list(running), timeout=1.0)[0]:
                path = running.pop(done)
                try:
                    kept.put(path, ray.get(done))
                except ray.exceptions.RayError as error:
                    words = " ".join(str(error).split())[-300:]
                    kept.put(path, {"problem": f"{path}: its task failed ({words})"})
    finally:
        ray.shutdown()


class Partial:
    """What came of each data set so far; in a folder, one file for each, where one is wanted.

    Args:
        paths: the data sets.
        folder: to be written, and with `resume` read first; None to keep nothing on disk.
        identity: plain values that must be the same for a run to go on.

    Raises:
        ResultsError: when the folder is damaged or that of another run, saying in what.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        folder: Path | None,
        identity: Mapping[str, Any],
        resume: bool,
    ) -> None:
        self.paths, self.folder = paths, folder
        self.states: dict[str, State] = {}
        now = json.loads(json.dumps({"version": VERSION, **identity}))
        if resume and folder and folder.exists():
            self._read(folder, now)
        else:
            self.remove()
        self._write("identity", now)

    def get(self, path: Path) -> State | None:
        """What came of a data set before; a failed one begins anew."""
        state = self.states.get(str(path))
        return None if state is None or "problem" in state else state

    def is_done(self, path: Path) -> bool:
        """Whether all frames of a data set were begun."""
        state = self.get(path)
        return state is not None and state["begun"] == state["frames"]

    @property
    def todo(self) -> list[Path]:
        """The data sets that are not done and have not failed."""
        failed = {path for path, state in self.states.items() if "problem" in state}
        return [p for p in self.paths if str(p) not in failed and not self.is_done(p)]

    @property
    def failed(self) -> list[str]:
        """What went wrong, of every data set that failed."""
        return [s["problem"] for s in self.states.values() if "problem" in s]

    def total(self, job: Job, models: Mapping[str, Model]) -> tuple[Tally, list[dict[str, Any]]]:
        """Everything that was scored as if it were one data set, and a summary of each.

        Raises:
            EvaluationError: with the problem of an only data set that failed.
        """
        total, parts = Tally(models, job.settings.score), []
        for path in self.paths:
            state = self.states.get(str(path), {})
            part: dict[str, Any] = {"name": path.name}
            if "scorers" in state:
                tally = Tally(models, job.settings.score)
                for each in (tally, total):
                    each.merge(state)
                part.update(tally.summary())
            if "problem" in state:
                part["problem"] = state["problem"]
                total.problems.insert(0, state["problem"])
            parts.append(part)
        if len(self.paths) == 1 and self.failed and not total.images:
            raise EvaluationError(self.failed[0])
        return total, parts

    def put(self, path: Path, state: State) -> None:
        """Keep what came of a data set."""
        self.states[str(path)] = state
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        self._write(name, {"path": str(path), "state": state})

    def remove(self) -> None:
        """Everything is done; nothing is left to go on from."""
        if self.folder and self.folder.is_dir():
            for file in self.folder.glob("*.json"):
                file.unlink()
            self.folder.rmdir()

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        if self.folder:
            text = json.dumps(values, allow_nan=False)
            write_atomically(self.folder / f"{name}.json", text.encode())

    def _read(self, folder: Path, now: Mapping[str, Any]) -> None:
        try:
            files = [json.loads(f.read_text(encoding="utf-8")) for f in folder.glob("*.json")]
            self.states = {f["path"]: f["state"] for f in files if "path" in f}
            (before,) = [f for f in files if "path" not in f]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f"{folder}: cannot be gone on from ({error}); leave out --resume to begin anew"
            ) from None
        for key, value in now.items():
            if before.get(key) != value:
                raise ResultsError(
                    f"{folder}: it was begun with other {key} ({before.get(key)}, now {value});"
                    " give the same, or leave out --resume to begin anew"
                )


def identity(job: Job, models: Mapping[str, Model], paths: Iterable[Path]) -> dict[str, Any]:
    """All that must be the same for a run to go on where another one ended."""
    return {
        "settings": as_dict(job.settings),
        "pipeline": as_dict(job.pipeline),
        "options": dict(job.options),
        "models": {name: model.runtime.sha256 for name, model in models.items()},  # type: ignore[attr-defined]
        "data": {str(path): _stamp(path) for path in paths},
        "versions": versions(),
    }


def _stamp(path: Path) -> list[int]:
    """Number of files, bytes and the time of the last change: of data that have not changed."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    known = [p.stat() for p in files if p.exists()]
    return [
        len(known),
        sum(s.st_size for s in known),
        max((s.st_mtime_ns for s in known), default=0),
    ]


class Parts:
    """The data sets of a job as one, each opened when a frame of it is asked for."""

    def __init__(self, job: Job, kept: Partial) -> None:
        self.job, self.paths = job, kept.paths
        lengths = [kept.states.get(str(p), {}).get("length", 0) for p in kept.paths]
        self.ends = list(accumulate(lengths))
        self._opened: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Any:
        part = bisect_right(self.ends, index)
        if part != self._opened[0]:
            self._opened = part, self.job.open(self.paths[part])
        return self._opened[1][index - (self.ends[part - 1] if part else 0)]
