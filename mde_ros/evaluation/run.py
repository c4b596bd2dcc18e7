"""One data set through the models: frames are read ahead, predicted, and measured behind.

Reading and measuring have threads of their own and wait for nothing but each other, so that a run
is as fast as the models; a few frames are held, however long the data set is.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mde_ros.config import check, setting
from mde_ros.evaluation.measure import Measured, ScoreSettings, counted, measure
from mde_ros.evaluation.pictures import Model, rectified, rectified_truth
from mde_ros.evaluation.results import EvaluationError, ResultsError
from mde_ros.evaluation.score import Scorer
from mde_ros.frame import Prediction

AHEAD = 4  # frames that are read before they are needed
BEHIND = 4  # frames whose predictions are still being measured
KEEP_PERIOD_S = 10.0  # between two calls of `keep`, and longer where there is much to keep:
KEEP_SHARE = 0.05  # of the time at most
ALONE_CALLS, ALONE_S = 20, 0.5  # how long a model is timed alone, whichever comes first
PROBLEMS = 20  # that are told; the others are counted


@dataclass(frozen=True)
class EvaluateSettings:
    """Which frames of a data set are taken, and what counts."""

    last: int = setting(0, "take the last N frames only, 0 = all", low=0)
    max_frames: int = setting(0, "take at most N frames, evenly spread, 0 = all", low=0)
    virtual_scan: str = setting(
        "", "height=H[,pitch=P,beams=N,noise=S]: cut a scan out of the truth, see VirtualScan"
    )
    scan_scaled: bool = setting(
        False, "beside every model without LiDAR: it times the median of scan / prediction"
    )
    score: ScoreSettings = field(default_factory=ScoreSettings)

    def __post_init__(self) -> None:
        check(self)

    def indices(self, length: int) -> range:
        """Which of a data set's frames are taken, in order."""
        start = max(0, length - self.last) if self.last else 0
        step = -(-(length - start) // self.max_frames) if self.max_frames else 1
        return range(start, length, max(1, step))


class Tally:
    """What the frames of a data set have come to: JSON keeps it, and others can be added.

    Attributes:
        scorers: model name → Scorer.
        length: frames of the data set. frames: those that are to be taken. begun: those done.
        dropped: reason → frames. problems: the first of them in words.
        sha256: over all that was scored, frame by frame. last: that of the last frame alone.
        seconds: that the run took. inference_s: of these, in the models.
        alone_ms: model name → its time per frame while nothing else ran.
    """

    COUNTS = ("length", "frames", "begun", "seconds", "inference_s")

    def __init__(self, models: Iterable[str], settings: ScoreSettings) -> None:
        self.scorers = {name: Scorer(settings) for name in models}
        self.length = self.frames = self.begun = 0
        self.dropped: Counter[str] = Counter()
        self.problems: list[str] = []
        self.sha256 = self.last = ""
        self.seconds = self.inference_s = 0.0
        self.alone_ms: dict[str, float] = {}

    @property
    def images(self) -> list[dict[str, Any]]:
        """The frames that were scored, with the numbers of the first model."""
        return next(iter(self.scorers.values())).images

    @property
    def is_complete(self) -> bool:
        """Whether every frame was begun that was to be taken."""
        return self.begun == self.frames

    def state(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            **{name: getattr(self, name) for name in self.COUNTS},
            "dropped": dict(self.dropped),
            "problems": self.problems,
            "sha256": self.sha256,
            "last": self.last,
            "alone_ms": self.alone_ms,
            "scorers": {name: scorer.state() for name, scorer in self.scorers.items()},
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what came of a data set that follows; `index` of its frames goes on from ours."""
        for name, scorer in self.scorers.items():
            theirs = state["scorers"][name]
            images = [{**i, "index": i["index"] + self.length} for i in theirs["images"]]
            scorer.merge({**theirs, "images": images})
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + state[name])
        self.dropped.update(state["dropped"])
        self.problems = (self.problems + state["problems"])[:PROBLEMS]
        both = (self.sha256 + state["sha256"]).encode()
        self.sha256 = hashlib.sha256(both).hexdigest() if self.sha256 else state["sha256"]
        self.last = state["last"]
        self.alone_ms = self.alone_ms or state["alone_ms"]

    def summary(self) -> dict[str, Any]:
        """The main numbers, as one of several data sets is told."""
        models = []
        for name, scorer in self.scorers.items():
            result = scorer.result()
            models.append({"name": name, **{k: result[k] for k in ("metrics", "median_scaled")}})
        return {
            "frames_in": self.begun,
            "frames_out": len(self.images),
            "dropped": dict(self.dropped),
            "sha256": self.sha256,
            "models": models,
        }

    def drop(self, reason: str, problem: str = "") -> None:
        """Count a frame that cannot be scored."""
        self.dropped[reason] += 1
        if problem and len(self.problems) < PROBLEMS:
            self.problems.append(problem)


@dataclass(frozen=True, eq=False)
class _Item:
    """A sample as the models and the scorers want it; the truth is None where none counts."""

    index: int
    sample: Any
    truth_m: np.ndarray | None
    moving: np.ndarray | None
    sha256: str


def run(
    dataset: Any,
    models: Mapping[str, Model],
    settings: EvaluateSettings,
    tally: Tally,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    keep: Callable[[], None] | None = None,
) -> None:
    """Take the frames that `tally` does not have yet through all models, and into it.

    A frame that cannot be read, or has no truth that counts, is counted and left out for all
    models. Latencies are those of the model's call.

    Args:
        dataset: has `len` and, by index, samples; read in a thread of its own.
        models: name → pipeline, or any callable from Frame to Prediction.
        progress: called with (frames begun, frames in all).
        stop: asked before every frame; true ends the run.
        keep: called every KEEP_PERIOD_S and at the end, when `tally` is whole.

    Raises:
        EvaluationError: when a truth is of another size than its image.
        ResultsError: when the frames that `tally` has are not those of the data set.
    """
    indices, names = settings.indices(len(dataset)), list(models)
    tally.length, tally.frames = len(dataset), len(indices)
    with _Reader(dataset, settings.score) as reader, _Measurer(tally, settings.score) as measurer:
        if tally.images:
            _go_on(reader, models, tally, settings.score)
        started = time.monotonic()
        due = started + KEEP_PERIOD_S
        for future in reader.ahead(indices[tally.begun :]):
            if stop():
                break
            if progress:
                progress(tally.begun, len(indices))
            tally.begun += 1
            try:
                item = future.result()
            except EvaluationError:
                raise
            except (ValueError, OSError) as error:
                tally.drop("unreadable", str(error))
                continue
            if item.truth_m is None:
                tally.drop("no truth")
                continue
            frame = item.sample.frame
            if not tally.alone_ms:
                tally.alone_ms = {name: _alone_ms(models[name], frame) for name in names}
                started = time.monotonic()
            measurer.begin(item)
            for name in names:
                before = time.perf_counter()
                prediction = models[name](frame)
                measurer.add(name, prediction, time.perf_counter() - before)
            names = names[1:] + names[:1]  # no model always comes first
            measurer.settle(BEHIND)
            if keep and time.monotonic() > due:
                measurer.settle(0)
                before = time.monotonic()
                keep()
                now = time.monotonic()
                due = now + max(KEEP_PERIOD_S, (now - before) / KEEP_SHARE)
        measurer.settle(0)
        tally.seconds += time.monotonic() - started
        tally.problems += getattr(dataset, "notes", list)()[: PROBLEMS - len(tally.problems)]
        if keep:
            keep()


class _Reader:
    """Reads samples in a thread of its own, in which whatever they need is opened and closed."""

    def __init__(self, dataset: Any, settings: ScoreSettings) -> None:
        self._settings = settings
        self._source = [copy.copy(dataset)]  # a copy of a bag opens it anew
        self._pool = ThreadPoolExecutor(1, "read")
        self._waiting: deque[Future[_Item]] = deque()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._waiting:
            future.cancel()
        self._pool.submit(self._source.clear)
        self._pool.shutdown()

    def begin(self, index: int) -> Future[_Item]:
        """Have a sample read when those before it are."""
        return self._pool.submit(self._read, index)

    def ahead(self, indices: Iterable[int]) -> Iterator[Future[_Item]]:
        """Samples in order; AHEAD of them are begun before they are asked for."""
        for index in indices:
            self._waiting.append(self.begin(index))
            if len(self._waiting) > AHEAD:
                yield self._waiting.popleft()
        while self._waiting:
            yield self._waiting.popleft()

    def _read(self, index: int) -> _Item:
        sample = self._source[0][index]
        frame, camera = sample.frame, sample.frame.camera
        truth_m, moving = rectified_truth(sample), getattr(sample, "moving", None)
        if truth_m is not None and not counted(truth_m, self._settings).any():
            truth_m = None
        if moving is not None:
            moving = rectified(moving.astype(np.uint8), sample, "mask of what moves") > 0
        digest = hashlib.sha256()
        for array in (frame.image, camera.K, camera.D, frame.points, sample.truth_m, moving):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return _Item(index, sample, truth_m, moving, digest.hexdigest())


class _Measurer:
    """Measures predictions in a thread of its own, and takes them into a tally.

    A second thread would only wait for the first: a measurement is hundreds of short calls, and
    Python passes its lock on after each.
    """

    def __init__(self, tally: Tally, settings: ScoreSettings) -> None:
        self._tally, self._settings = tally, settings
        self._pool = ThreadPoolExecutor(1, "measure")
        self._behind: deque[tuple[_Item, dict[str, tuple[Future[Measured], float]]]] = deque()

    def __enter__(self) -> _Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, item: _Item) -> None:
        """The next frame, whose predictions are added one after the other."""
        self._behind.append((item, {}))

    def add(self, name: str, prediction: Prediction, latency_s: float) -> None:
        """Have a model's prediction of the frame measured."""
        item, measured = self._behind[-1]
        measured[name] = self._pool.submit(_measured, item, prediction, self._settings), latency_s
        self._tally.inference_s += latency_s

    def settle(self, behind: int) -> None:
        """Take in all frames but the last `behind`, waiting for what is being measured."""
        tally = self._tally
        while len(self._behind) > behind:
            item, results = self._behind.popleft()
            for name, (measured, latency_s) in results.items():
                frame, scorer = item.sample.frame, tally.scorers[name]
                image = scorer.take(item.sample.name, measured.result(), frame.stamp_ns)
                image.update(index=item.index, latency_ms=1e3 * latency_s)
            tally.sha256 = hashlib.sha256((tally.sha256 + item.sha256).encode()).hexdigest()
            tally.last = item.sha256


def _measured(item: _Item, prediction: Prediction, settings: ScoreSettings) -> Measured:
    assert item.truth_m is not None
    return measure(prediction, item.truth_m, settings, item.moving, item.sample.name)


def _go_on(
    reader: _Reader, models: Mapping[str, Model], tally: Tally, settings: ScoreSettings
) -> None:
    """Predict the last frame of a tally once more, for the next one to be compared with."""
    last = tally.images[-1]
    item = reader.begin(last["index"]).result()
    if item.sha256 != tally.last:
        raise ResultsError(
            f"{last['name']}: this frame has changed since the run began; leave out --resume to"
            " begin anew"
        )
    frame = item.sample.frame
    for name, model in models.items():
        tally.scorers[name].follow(_measured(item, model(frame), settings), frame.stamp_ns)


def _alone_ms(model: Model, frame: Any) -> float:
    """Median time of a call; the first, which allocates, is not what a robot sees."""
    model(frame)
    times: list[float] = []
    while len(times) < ALONE_CALLS and sum(times) < ALONE_S:
        before = time.perf_counter()
        model(frame)
        times.append(time.perf_counter() - before)
    return 1e3 * float(np.median(times))
