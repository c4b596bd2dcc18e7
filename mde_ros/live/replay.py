"""Frames are played through a node over DDS, and what it publishes is recorded.

Player and node are processes, in a ROS domain of their own. `mde demo` and `mde evaluate --live`
stand on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.datasets import Dataset, Sample
from mde_ros.frame import Frame, Prediction
from mde_ros.isolation import Child, environment, own_domain
from mde_ros.live.played import (
    DIAGNOSTICS,
    DIAGNOSTICS_TYPE,
    LiveError,
    counts_of,
    dropped,
    node_says,
    scan_settings,
    stamps_of,
    topics_of,
)

NAMESPACE = "/mde"
DEPTH = f"{NAMESPACE}/depth/image_rect"
UNCERTAINTY = f"{NAMESPACE}/uncertainty"
RECORDED = {DEPTH: "sensor_msgs/msg/Image", DIAGNOSTICS: DIAGNOSTICS_TYPE}
PARAMETERS = {"diagnostics_period": 0.2, "use_sim_time": True, "autostart": True}
TRANSPORT = "Fast DDS between processes"
READY_LIMIT_S = 60.0


@dataclass
class Replay:
    """What came of playing a data set through a node.

    Attributes:
        output: the bag with what the node published.
        stamps_ns: stamps of all images that were played, in the order of the data set.
        logged_ns: stamp → time under which its depth is logged in `output`.
        latency_ms: stamp → milliseconds from the image being sent to its depth being received.
        diagnostics: what the node said of itself last, key → value.
        uncertainty_ns: as logged_ns, of the uncertainty, where it is recorded.
        settings: parameters that the node was given.
    """

    output: Path
    stamps_ns: list[int]
    logged_ns: dict[int, int]
    latency_ms: dict[int, float]
    diagnostics: dict[str, str]
    uncertainty_ns: dict[int, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def dropped(self) -> dict[str, int]:
        """Why images have no depth, see `dropped`."""
        return dropped(counts_of(self.diagnostics), len(self.stamps_ns), len(self.logged_ns))

    def fps(self) -> float | None:
        """Depth images per second of wall time, from the first to the last."""
        seconds = (max(self.logged_ns.values()) - min(self.logged_ns.values())) * 1e-9
        return (len(self.logged_ns) - 1) / seconds if seconds > 0 else None


def replay(
    source: str | Path,
    dataset: Dataset,
    out: Path,
    model: str = "default",
    rate: float = 1.0,
    folder_rate: float = 10.0,
    parameters: Mapping[str, Any] | None = None,
    recorded: Mapping[str, str] = RECORDED,
    progress: bool = True,
    completion: bool = False,
) -> Replay:
    """Play a bag or folder through a node, both as processes, and record what it publishes.

    Args:
        source: path of the bag or RGB-D folder; `dataset` is the same, opened.
        out: folder that gets output.mcap and log/.
        model: shipped name or file.
        rate, folder_rate: as Player and FolderBag take them.
        parameters: more parameters of the node.
        recorded: topics and their types, those of RECORDED and perhaps more.
        progress: show a bar with the time left on stderr.
        completion: through the completion node, with the bag's scans, instead of the depth node;
            see scan_settings.

    Raises:
        LiveError, isolation.ChildError: when the node or the player fails, or nothing comes back.
    """
    from mde_ros.datasets.bag_file import BagWriter
    from mde_ros.nodes.listener import Listener
    from mde_ros.nodes.player import open_source, terminable
    from mde_ros.nodes.process import dds_environment
    from mde_ros.runtime import find_model

    find_model(model, Path(model).suffix or ".onnx")  # says at once what is wrong with a name
    with open_source(source, folder_rate) as opened:
        topics, stamps = topics_of(opened, dataset), stamps_of(opened, dataset)
        length_s = (opened.end_ns - opened.start_ns) * 1e-9 / rate
        settings = {**PARAMETERS, **(parameters or {}), "model": model}
        if completion:
            settings |= scan_settings(opened, topics, settings.get("laser_to_camera", ""))
    node_command = topics.node(NAMESPACE, settings, completion)
    player_command = topics.player(source, rate, folder_rate) + ["--wait-limit", "30"]
    player_command += ["--topics", topics.image, topics.camera_info]
    player_command += [topics.scan] if completion else []

    log = out / "log"
    log.mkdir(parents=True, exist_ok=True)
    said: dict[str, str] = {}
    with ExitStack() as stack:
        stack.enter_context(terminable())
        domain = stack.enter_context(own_domain())
        changes = {**domain, **dds_environment(), "ROS_LOG_DIR": str(log.resolve())}
        stack.enter_context(environment(changes))
        bag = stack.enter_context(BagWriter(out / "output.mcap"))
        ears = stack.enter_context(Listener())

        def keep(name: str, kind: str, received_ns: int, raw: bytes) -> None:
            bag.write(name, kind, received_ns, raw)
            if name == DIAGNOSTICS:
                said.update(node_says(raw, topics.heard))

        for name, kind in recorded.items():
            ears.hear(name, kind, keep, reliable=True)
        ears.hear(topics.heard, topics.kind)
        ears.hear(topics.heard_info, "sensor_msgs/msg/CameraInfo")
        node = stack.enter_context(Child("node", node_command, log))
        ready = ears.spin_until(
            lambda: node.running() and ears.node.count_subscribers(topics.heard_info) > 1,
            READY_LIMIT_S,
        )
        if not ready:
            raise LiveError(f"the node was not ready in {READY_LIMIT_S:g} s: {node.last_words()}")
        player = stack.enter_context(Child("player", player_command, log))
        came, sent = ears.received[DEPTH], ears.sent[topics.heard]
        with bar(Path(source).name, len(stamps), progress) as show:

            def ended() -> bool:
                show(len(came))
                return node.running() and player.ended()

            if not ears.spin_until(ended, length_s * 1.5 + READY_LIMIT_S):
                raise LiveError(f"the player did not come to its end: {player.last_words()}")
            # What is still on its way, and then the node's last word on all of it.
            ears.spin_until(lambda: len(came) == len(stamps), 1.5)
            words = ears.count[DIAGNOSTICS]
            ears.spin_until(lambda: ears.count[DIAGNOSTICS] > words + 1, 2.0)
            show(len(came))
    latency_ms = {s: (came[s] - sent[s]) * 1e-6 for s in came if s in sent}
    if not came:
        raise LiveError(f"no depth came back from the node: {node.last_words()}")
    if not came.keys() & stamps:
        raise LiveError(f"{source}: no depth came back with the stamp of an image; are they zero?")
    sigma = dict(ears.received.get(UNCERTAINTY, {}))
    return Replay(out / "output.mcap", stamps, dict(came), latency_ms, said, sigma, settings)


class Arrived:
    """The frames of a data set whose depth came back, and that depth.

    Args:
        dataset: what was played.
        live: what came of it.
    """

    def __init__(self, dataset: Dataset, live: Replay) -> None:
        from mde_ros.datasets.bag_file import Bag

        self.name, self._dataset, self._live = dataset.name, dataset, live
        self._bag = Bag(live.output)
        self.indices = [i for i, s in enumerate(live.stamps_ns) if s in live.logged_ns]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """The sample, its frame stamped as it was played."""
        sample = self._dataset[self.indices[index]]
        f = sample.frame
        stamp = self._live.stamps_ns[self.indices[index]]
        frame = Frame(f.image, f.camera, f.points, stamp)
        return Sample(frame, sample.truth_m, sample.name, sample.moving)

    def depth_of(self, frame: Frame) -> Prediction:
        """What the node published for a frame; a model like any other to `evaluate`.

        Raises:
            LiveError: when its depth is not in the recording.
        """
        depth_m = self._recorded(DEPTH, self._live.logged_ns, frame.stamp_ns)
        if depth_m is None:
            raise LiveError(f"{self._live.output}: no depth of stamp {frame.stamp_ns}")
        uncertainty_m = self._recorded(UNCERTAINTY, self._live.uncertainty_ns, frame.stamp_ns)
        return Prediction(depth_m, uncertainty=uncertainty_m)

    def _recorded(self, topic: str, logged_ns: dict[int, int], stamp: int) -> np.ndarray | None:
        """The image (H, W) of a stamp, in metres."""
        from mde_ros.datasets.bag_messages import depth_metres, stamp_ns

        if stamp not in logged_ns:
            return None
        for _, _, raw in self._bag.messages([topic], logged_ns[stamp], logged_ns[stamp] + 1):
            message = self._bag.decode(topic, raw)
            if stamp_ns(message.header) == stamp:
                return depth_metres(message)
        return None


@contextmanager
def bar(name: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left, on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeLeft())
    shown = shown and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.update(task, completed=done)
