"""Frames and how they lie to each other over time: what tf2 is for live nodes, without ROS."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable

import numpy as np

from mde_ros.geometry import interpolate_pose

SECOND = 1_000_000_000
WINDOW_NS = 10 * SECOND  # of stamped poses that an edge remembers
LONGEST_GAP_NS = SECOND  # between two poses that differ; what lies between is not known
FASTEST_M_S, FASTEST_RAD_S = 50.0, 30.0  # whoever is faster has jumped
FIXED_FRAMES = ("odom", "map", "world")  # in which a robot moves, the smoothest first


class TransformError(ValueError):
    """A pose that the tree cannot tell.

    Attributes:
        reason: "frames not connected", "no transform at that time" or "a transform jumps".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Edge:
    """T_parent_child: one that never changes, or stamped ones in the order of their stamps."""

    def __init__(self, parent: str, child: str) -> None:
        self.name = f"{parent} → {child}"
        self.static: np.ndarray | None = None
        self.stamps: list[int] = []
        self.poses: list[np.ndarray] = []

    def add(self, T: np.ndarray, stamp_ns: int | None) -> None:
        if stamp_ns is None:
            self.static = T
            return
        self.static = None
        if self.stamps and stamp_ns < self.stamps[-1] - WINDOW_NS:  # the clock was set back
            self.stamps.clear()
            self.poses.clear()
        place = bisect_left(self.stamps, stamp_ns)
        known = place < len(self.stamps) and self.stamps[place] == stamp_ns
        self.stamps[place : place + known] = [stamp_ns]
        self.poses[place : place + known] = [T]
        old = bisect_left(self.stamps, self.stamps[-1] - WINDOW_NS)
        del self.stamps[:old], self.poses[:old]

    def covers(self, stamp_ns: int, slack_ns: int) -> bool:
        if self.static is not None:
            return True
        return self.stamps[0] - slack_ns <= stamp_ns <= self.stamps[-1] + slack_ns

    def at(self, stamp_ns: int, other_ns: int, slack_ns: int) -> np.ndarray:
        """T_parent_child at a stamp, which nothing may keep from being followed to the other."""
        if self.static is not None:
            return self.static
        if not self.covers(stamp_ns, slack_ns):
            away = max(self.stamps[0] - stamp_ns, stamp_ns - self.stamps[-1]) / SECOND
            side = "before the first" if stamp_ns < self.stamps[0] else "after the last"
            raise TransformError(
                "no transform at that time",
                f"{self.name} is not known at {stamp_ns / SECOND:.3f} s, {away:.3f} s {side}"
                " transform",
            )
        last, b = len(self.stamps) - 1, bisect_left(self.stamps, stamp_ns)
        if not last or (stamp_ns == other_ns and b <= last and self.stamps[b] == stamp_ns):
            return self.poses[min(b, last)]
        begin, end = sorted((stamp_ns, other_ns))
        first = min(max(bisect_right(self.stamps, begin), 1), last)
        for step in range(first, min(max(bisect_left(self.stamps, end), 1), last) + 1):
            self._check_step(step)
        b = min(max(b, 1), last)
        share = (stamp_ns - self.stamps[b - 1]) / (self.stamps[b] - self.stamps[b - 1])
        return interpolate_pose(self.poses[b - 1], self.poses[b], share)

    def _check_step(self, step: int) -> None:
        """Refuse what nobody can have moved from one stamped pose to the next."""
        span_ns = self.stamps[step] - self.stamps[step - 1]
        a, b = self.poses[step - 1], self.poses[step]
        metres = float(np.linalg.norm(b[:3, 3] - a[:3, 3]))
        cosine = (np.sum(a[:3, :3] * b[:3, :3]) - 1) / 2
        radians = float(np.arccos(np.clip(cosine, -1, 1)))
        when = f"{self.stamps[step - 1] / SECOND:.3f} s"
        seconds = span_ns / SECOND
        if span_ns > LONGEST_GAP_NS and (metres > 1e-3 or radians > 1e-3):
            raise TransformError(
                "no transform at that time", f"{self.name} stops for {seconds:.3f} s at {when}"
            )
        if metres > FASTEST_M_S * seconds or radians > FASTEST_RAD_S * seconds:
            raise TransformError(
                "a transform jumps",
                f"{self.name} jumps by {metres:.2f} m and {np.degrees(radians):.0f}° at {when}",
            )


class TransformTree:
    """Stamped and static transforms, to be asked for the pose of any frame in any other.

    Poses between two stamps are interpolated; nothing is told beyond a stated limit, across a gap
    or across a jump. Of every edge the last ten seconds are kept. A frame may have several
    parents; the shortest way that is known at the time counts. `/base` and `base` are one frame.
    """

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, tuple[_Edge, bool]]] = {}  # and whether it leads up

    def add(self, parent: str, child: str, T: np.ndarray, stamp_ns: int | None = None) -> None:
        """Take T_parent_child (4, 4) of a stamp, or, without one, for all time.

        Raises:
            ValueError: when it is not finite or a frame has no name.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise ValueError(f"transform: expected two frames, got {parent!r} and {child!r}")
        if not np.isfinite(T).all():
            raise ValueError(f"transform: expected finite numbers for {parent} → {child}")
        known = self._edges.get(parent, {}).get(child)
        edge = known[0] if known and not known[1] else _Edge(parent, child)
        edge.add(T, stamp_ns)
        self._edges.setdefault(parent, {})[child] = edge, False
        self._edges.setdefault(child, {})[parent] = edge, True

    def connects(self, *frames: str) -> bool:
        """Whether all these frames hang together, at whatever time."""
        first, *others = [f.lstrip("/") for f in frames]
        return all(self._path(first, f, lambda edge, up: True) is not None for f in others)

    def fixed_frame(self, *frames: str) -> str | None:
        """The frame of FIXED_FRAMES that all these frames hang together with, if there is one."""
        candidates = [
            f for name in FIXED_FRAMES for f in self._edges if f.rpartition("/")[2] == name
        ]
        return next((f for f in candidates if self.connects(f, *frames)), None)

    def lookup(
        self,
        target: str,
        source: str,
        stamp_ns: int,
        source_ns: int | None = None,
        fixed: str | None = None,
        slack_s: float = 0.0,
    ) -> np.ndarray:
        """T_target_source (4, 4): points of `source` into `target`.

        Args:
            target, source: names of frames.
            stamp_ns: the time of the target, and of the source unless told otherwise.
            source_ns: the time of the source.
            fixed: a frame that stands still between the two times. Without one, nothing is moved
                but what moves between the two frames (a turning head), each end at its own time.
            slack_s: seconds beyond the first and the last known pose that their motion may be
                extrapolated.

        Raises:
            TransformError: when the frames are not connected at these times, naming them.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        times = stamp_ns, stamp_ns if source_ns is None else source_ns
        slack_ns = round(slack_s * SECOND)
        if fixed is None:
            return self._walk(target, source, times, slack_ns)
        fixed = fixed.lstrip("/")
        T_target_fixed = self._walk(target, fixed, times, slack_ns, at=times[0])
        return T_target_fixed @ self._walk(fixed, source, times, slack_ns, at=times[1])

    def _walk(
        self, target: str, source: str, times: tuple[int, int], slack_ns: int, at: int | None = None
    ) -> np.ndarray:
        """T_target_source; ways up at the first time and down at the second, or all at one."""

        def when(up: bool) -> int:
            return at if at is not None else times[0 if up else 1]

        path = self._path(target, source, lambda edge, up: edge.covers(when(up), slack_ns))
        if path is None:
            path = self._path(target, source, lambda edge, up: True)  # which says where it breaks
        if path is None:
            missing = [f for f in (target, source) if f not in self._edges]
            frames = ", ".join(sorted(self._edges)) or "none"
            raise TransformError(
                "frames not connected",
                f"there is no frame {missing[0]!r}; there are {frames}"
                if missing
                else f"no transforms connect {target!r} and {source!r}",
            )
        T = np.eye(4)
        for edge, up in path:
            T_parent_child = edge.at(when(up), times[0] + times[1] - when(up), slack_ns)
            T = T @ (np.linalg.inv(T_parent_child) if up else T_parent_child)
        return T

    def _path(
        self, start: str, goal: str, usable: Callable[[_Edge, bool], bool]
    ) -> list[tuple[_Edge, bool]] | None:
        """The fewest edges from one frame to another, each with whether it is gone upwards."""
        paths: dict[str, list[tuple[_Edge, bool]]] = {start: []}
        queue = deque([start])
        while queue and goal not in paths:
            here = queue.popleft()
            for there, (edge, up) in self._edges.get(here, {}).items():
                if there not in paths and usable(edge, up):
                    paths[there] = [*paths[here], (edge, up)]
                    queue.append(there)
        return paths.get(goal)
