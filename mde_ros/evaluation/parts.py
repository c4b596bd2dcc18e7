"""Several data sets, such as a folder of bags: each by itself, here or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import logging
import socket
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from mde_ros.config import PipelineSettings, as_dict
from mde_ros.datasets import DatasetError, is_bag, is_rgbd, open_dataset
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.evaluation.baseline import ScanScaled
from mde_ros.evaluation.partial import Partial, State, stamp
from mde_ros.evaluation.pictures import Model
from mde_ros.evaluation.results import EvaluationError, versions
from mde_ros.evaluation.run import EvaluateSettings, Tally, run
from mde_ros.pipeline import DepthPipeline


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


def identity(job: Job, models: Mapping[str, Model], paths: Iterable[Path]) -> dict[str, Any]:
    """All that must be the same for a run to go on where another one ended."""
    return {
        "settings": as_dict(job.settings),
        "pipeline": as_dict(job.pipeline),
        "options": dict(job.options),
        "models": {name: model.runtime.sha256 for name, model in models.items()},  # type: ignore[attr-defined]
        "data": {str(path): stamp(path) for path in paths},
        "versions": versions(),
    }


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
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise EvaluationError(
            f"--ray: expected a cluster at {address}, found none ({error}); start one with `ray"
            " start --head`, or give local"
        ) from None
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
