"""The viewer: its window, and a picture of it without one."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rerun as rr
import rerun_cli
from rerun.experimental import ViewerClient

from mde_ros.evaluation.results import write_atomically
from mde_ros.view.scene import APPLICATION, TRAJECTORY, Scene, ViewError

VIEWER = Path(rerun_cli.__file__).with_name("rerun")
DRIVER = "the Vulkan driver of a GPU or one in software (apt install mesa-vulkan-drivers)"
SIZE = "1280x720"
READY_LIMIT_S = 60.0
STEADY_S = 3.0  # a picture that has not changed for so long is finished: while it loads, dots run


def open_window(stream: rr.RecordingStream) -> None:
    """Show a recording in a window as it comes, in one that is open already if there is one.

    Raises:
        ViewError: when no window opens.
    """
    rr.spawn(recording=stream, executable_path=str(VIEWER))
    try:
        ViewerClient.connect().get_state()
    except ConnectionError:
        raise ViewError(
            f"the viewer did not open, see what it said; it needs a display and {DRIVER}, or give"
            " --save FILE.rrd"
        ) from None


def draw(scene: Scene, target: Path) -> None:
    """The last moment of a scene as the viewer shows it, drawn without a window.

    Raises:
        ViewError: when nothing can be drawn on this machine.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder) / "last.rrd"
            _save_last(scene, recording)
            with _hidden_viewer(recording) as viewer:
                picture = _finished_picture(viewer)
    except ConnectionError:
        raise ViewError(f"{target}: the viewer cannot draw here, it needs {DRIVER}") from None
    except TimeoutError:
        raise ViewError(f"{target}: the viewer draws too slowly on this machine") from None
    write_atomically(target, picture)


def _finished_picture(viewer: ViewerClient) -> bytes:
    """PNG of the viewer when it no longer changes."""
    began = since = time.monotonic()
    picture = b""
    while time.monotonic() < since + STEADY_S:
        before = picture
        try:
            picture = viewer.take_screenshot()
        except TimeoutError:  # after 15 s: other work may have kept it
            if time.monotonic() > began + READY_LIMIT_S:
                raise
        if picture != before or not picture:
            since = time.monotonic()
        time.sleep(0.3)
    return picture


def _save_last(scene: Scene, recording: Path) -> None:
    stream = rr.RecordingStream(APPLICATION)
    stream.save(recording)
    last = Scene(stream)
    last.at(scene.stamp)
    for path, what in scene.latest.items():
        last.log(path, what)
    if scene.trail:
        last.log(TRAJECTORY, rr.LineStrips3D([scene.trail]))
    stream.disconnect()


@contextmanager
def _hidden_viewer(recording: Path) -> Iterator[ViewerClient]:
    """A viewer of a recording, without a window.

    Raises:
        ConnectionError: when it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(VIEWER), str(recording), "--headless", "--window-size", SIZE]
    command += ["--bind", "127.0.0.1", "--port", str(port)]
    # An app only: no question about analytics. Warnings would be drawn into the picture.
    environment = {**os.environ, "RERUN_APP_ONLY": "true", "RUST_LOG": "off"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield _connected(process, f"rerun+http://127.0.0.1:{port}/proxy")
    finally:
        process.terminate()
        process.wait()


def _connected(process: subprocess.Popen, url: str) -> ViewerClient:
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            viewer = ViewerClient.connect(url)
            viewer.get_state()
            return viewer
        except ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
