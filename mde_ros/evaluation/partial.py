"""What is done of an evaluation, kept beside results.json until all is, so that it can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mde_ros.evaluation.measure import ScoreSettings
from mde_ros.evaluation.results import VERSION, EvaluationError, ResultsError, write_atomically
from mde_ros.evaluation.run import Tally

State = dict[str, Any]  # of a Tally, and `problem` in words where its data set failed


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

    def total(
        self, models: Iterable[str], settings: ScoreSettings
    ) -> tuple[Tally, list[dict[str, Any]]]:
        """Everything that was scored as if it were one data set, and a summary of each.

        Raises:
            EvaluationError: with the problem of an only data set that failed.
        """
        models = list(models)
        total, parts = Tally(models, settings), []
        for path in self.paths:
            state = self.states.get(str(path), {})
            part: dict[str, Any] = {"name": path.name}
            if "scorers" in state:
                tally = Tally(models, settings)
                for each in (tally, total):
                    each.merge(state)
                part.update(tally.summary())
            if "problem" in state:
                part["problem"] = state["problem"]
            parts.append(part)
        total.problems = [p["problem"] for p in parts if "problem" in p] + total.problems
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
                words = _difference(before.get(key), value)
                raise ResultsError(
                    f"{folder}: it was begun with other {key} ({words}); give the same, or leave"
                    " out --resume to begin anew"
                )


def _difference(before: Any, now: Any, name: str = "") -> str:
    """The first of two nested values' differences, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{key} ")
    words = ["nothing" if value is None else value for value in (before, now)]
    return f"{name}{words[0]}, now {words[1]}"


def stamp(path: Path) -> list[int]:
    """Number of files, bytes and the time of the last change: of data that have not changed."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    known = [p.stat() for p in files if p.exists()]
    return [
        len(known),
        sum(s.st_size for s in known),
        max((s.st_mtime_ns for s in known), default=0),
    ]
