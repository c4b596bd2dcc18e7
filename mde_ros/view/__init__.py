"""mde view: recordings on one time line in the rerun viewer.

They become these entities; what a recording lacks is left out. KIND is `prediction` (of --model),
`recorded` (what our node had published) or `truth` (measured).

    world/camera             where the camera is
    world/camera/lens        its intrinsics, lens distortion removed
    world/camera/lens/image  what it saw
    world/camera/lens/KIND   depth in metres
    world/camera/cloud/KIND  the same as points in the image's colours
    world/camera/scan        LiDAR returns
    world/trajectory         the camera's way so far
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rerun as rr

from mde_ros.config import PipelineSettings
from mde_ros.evaluation.pictures import Model
from mde_ros.pipeline import DepthPipeline
from mde_ros.view.scene import APPLICATION, Scene, ViewError
from mde_ros.view.sources import open_source
from mde_ros.view.viewer import draw, open_window


def run_view(
    sources: Sequence[str],
    *,
    model: str | None = None,
    save: str | None = None,
    screenshot: str | None = None,
    max_frames: int = 0,
    topics: Mapping[str, Any] | None = None,
) -> int:
    """`mde view`: show recordings, all on one time line by their stamps.

    Args:
        sources: bags, RGB-D folders, recordings of our node such as the demo's output.mcap.
        model: shipped name or file, whose prediction is shown too.
        save: .rrd file to be written instead of opening a window.
        screenshot: PNG of the last frame to be written instead of opening a window.
        max_frames: of each source, evenly spread; 0 = all.
        topics: more arguments of open_dataset, such as a bag's topics.

    Returns:
        0, or 130 when Ctrl-C ended it early; what was done is kept and can be looked at.

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    if max_frames < 0:
        raise ViewError(f"--max-frames: expected 0 or more, got {max_frames}")
    if not (save or screenshot or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ViewError(
            "expected a display for the viewer, found none; give --save FILE.rrd and open it"
            " elsewhere with `rerun FILE.rrd`, or --screenshot FILE.png"
        )
    models: dict[str, Model] = {}
    if model:
        models["prediction"] = DepthPipeline(PipelineSettings(model=model))
    shows = [s for source in sources for s in open_source(source, models, max_frames, topics or {})]
    with _recording(save, screenshot) as scene, _bar(sum(map(len, shows))) as advance:
        try:
            for show in shows:
                for _ in show.frames(scene):
                    advance()
        except KeyboardInterrupt:
            return 130
        problems = [problem for show in shows for problem in show.problems]
        if not scene.latest:
            why = problems[0] if problems else "they have none"
            raise ViewError(f"{', '.join(sources)}: no frame can be shown ({why})")
        if problems:
            print(f"{len(problems)} frames left out: {problems[0]}", file=sys.stderr)
    return 0


@contextmanager
def _recording(save: str | None, screenshot: str | None) -> Iterator[Scene]:
    """A scene that ends in a window, or in an .rrd file, a picture or both.

    A file holds what was logged, whatever ended it; if that was nothing, there is none.
    """
    stream = rr.RecordingStream(APPLICATION)
    scene = Scene(stream)
    if not (save or screenshot):
        open_window(stream)
    if save:
        part = Path(save).with_name(f".{Path(save).name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()  # says what is wrong with the place in the system's words
        stream.save(part)
    try:
        yield scene
    finally:
        stream.disconnect()
        if save:
            part.replace(save) if scene.latest else part.unlink()
    if screenshot and scene.latest:
        draw(scene, Path(screenshot))
    for file in filter(None, (save, screenshot)):
        if scene.latest:
            print(file)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeLeft(), transient=True, console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("frames", total=total)
        yield lambda: bar.advance(task)
