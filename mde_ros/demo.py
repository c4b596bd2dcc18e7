"""mde demo: the real node and a player as processes, what came back over DDS, and a report on it.

`replay` is the part that runs: it serves every judgement of the node as it is deployed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mde_ros.datasets import Dataset, Sample, open_dataset
from mde_ros.frame import Frame, Prediction
from mde_ros.isolation import own_domain

NAMESPACE = "/mde"
DEPTH, DEPTH_INFO = f"{NAMESPACE}/depth/image_rect", f"{NAMESPACE}/depth/camera_info"
RECORDED = {
    DEPTH: "sensor_msgs/msg/Image",
    DEPTH_INFO: "sensor_msgs/msg/CameraInfo",
    f"{NAMESPACE}/points": "sensor_msgs/msg/PointCloud2",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}
# Every fourth row and column of the cloud: enough to look at, and the bag stays small.
PARAMETERS = {"point_stride": "4", "diagnostics_period": "0.2", "use_sim_time": "true"}
READY_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
PR_SET_PDEATHSIG = 1


class DemoError(ValueError):
    """The demo cannot be run; the message is one sentence."""


@dataclass
class Replay:
    """What came of playing a data set through the node.

    Attributes:
        output: the bag with what the node published.
        sent: images that were played.
        stamps_ns: stamps of all images, in the order of the data set.
        logged_ns: stamp → time under which its depth is logged in `output`.
        latency_ms: stamp → milliseconds from the image being sent to its depth being received.
        diagnostics: what the node said of itself last, key → value.
    """

    output: Path
    sent: int
    stamps_ns: list[int]
    logged_ns: dict[int, int]
    latency_ms: dict[int, float]
    diagnostics: dict[str, str]

    def dropped(self) -> dict[str, int]:
        """Why images have no depth: the node's own reasons, and what never reached it or us."""
        said = {k: int(v) for k, v in self.diagnostics.items() if _is_count(k)}
        out = {k.removeprefix("dropped."): n for k, n in said.items() if k.startswith("dropped.")}
        frames_in, frames_out = said.get("frames_in", 0), said.get("frames_out", 0)
        out["idle"] = said.get("frames_idle", 0)
        out["not received by the node"] = self.sent - frames_in
        out["not received from the node"] = frames_out - len(self.logged_ns)
        return {reason: n for reason, n in out.items() if n > 0}


def run_demo(
    *,
    bag: str | None = None,
    folder: str | None = None,
    model: str = "default",
    output: str = "demo",
    rate: float = 1.0,
    folder_rate: float = 10.0,
    progress: bool = True,
    topics: dict[str, str] | None = None,
) -> int:
    """`mde demo`: play recorded frames through the node, judge what comes back, write a report.

    Args:
        bag: with images, camera_info and, for the accuracy, depth; the sample bag by default.
        folder: an RGB-D folder instead.
        model: shipped name or file.
        output: folder that gets output.mcap, results.json, report.html and log/.
        rate: times as fast as recorded.
        folder_rate: frames per second of a folder.
        progress: show a bar with the time left on stderr.
        topics: image_topic, camera_info_topic and depth_topic of a bag with several.

    Returns:
        0, or 130 after Ctrl-C.

    Raises:
        ValueError: on a user's error, or when the node cannot be run; one sentence.
    """
    from mde_ros.evaluation.pictures import save_pictures, take_pictures
    from mde_ros.evaluation.report import write_report
    from mde_ros.evaluation.results import print_table, write_json

    if bag and folder:
        raise DemoError("expected --bag or --folder, got both")
    source = Path(folder or bag or str(resources.files("mde_ros") / "samples" / "stills.mcap"))
    dataset = open_dataset(source, **(topics or {}))
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    results_json = out / "results.json"
    for old in (results_json, out / "results.npz", out / "report.html", out / "output.mcap"):
        old.unlink(missing_ok=True)
    try:
        live = replay(source, dataset, out, model, rate, folder_rate, progress=progress)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    arrived = Arrived(dataset, live)
    if not len(arrived):
        raise DemoError(f"{source}: no depth came back with the stamp of an image; are they zero?")
    recorded = {live.diagnostics.get("model", model): arrived.depth_of}
    name = source.resolve().name if source.is_dir() else source.stem
    with _bar(f"judging {name}", len(arrived), progress) as show:
        results = judge(live, arrived, recorded, name, show)
    pictures = take_pictures(arrived, recorded, results)
    write_json(results_json, results)
    save_pictures(results_json.with_suffix(".npz"), pictures)
    title = f"{next(iter(recorded))} on {results['data']['name']}, through the ROS node"
    write_report([results], pictures, out / "report.html", title)
    print_table(results)
    for name in ("report.html", "results.json", "output.mcap"):
        print(out / name)
    return 0


def replay(
    source: Path,
    dataset: Dataset,
    out: Path,
    model: str = "default",
    rate: float = 1.0,
    folder_rate: float = 10.0,
    parameters: dict[str, str] | None = None,
    progress: bool = True,
) -> Replay:
    """Play a bag or folder through the node, both as processes, and record what it publishes.

    Args:
        source: path of the bag or RGB-D folder; `dataset` is the same, opened.
        out: folder that gets output.mcap and log/.
        model: shipped name or file.
        rate, folder_rate: as Player and FolderBag take them.
        parameters: more parameters of the node, name → YAML value.
        progress: show a bar with the time left on stderr.

    Raises:
        DemoError: when the node or the player fails, or nothing comes back.
    """
    from mde_ros.datasets.bag_file import FolderBag
    from mde_ros.nodes.player import open_source, terminable, valid_name
    from mde_ros.nodes.recorder import Recorder
    from mde_ros.runtime import find_model

    find_model(model, Path(model).suffix or ".onnx")  # says at once what is wrong with a name
    with open_source(source, folder_rate) as played:
        if isinstance(played, FolderBag):
            image, info = _sample_topics()
            stamps = [played.stamp(i) for i in range(len(dataset))]
        else:
            image, info = dataset.topics.image, dataset.topics.camera_info  # type: ignore[attr-defined]
            stamps = dataset.stamps_ns()  # type: ignore[attr-defined]
        kind = played.topics[image].type
        length_s = (played.end_ns - played.start_ns) * 1e-9 / rate
    compressed = kind.endswith("CompressedImage")
    base = valid_name(image.removesuffix("/compressed") if compressed else image)
    heard = f"{base}/compressed" if compressed else base
    heard_info = valid_name(info)

    settings = {**PARAMETERS, **(parameters or {}), "model": model, "autostart": "true"}
    settings["image_transport"] = "compressed" if compressed else "raw"
    node_command = ["mde_ros.nodes.depth_node", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    node_command += ["-r", f"image:={base}", "-r", f"camera_info:={heard_info}"]
    for name, value in settings.items():  # a path may look like anything to a YAML parser
        node_command += ["-p", f"{name}:={json.dumps(value) if name == 'model' else value}"]
    player_command = ["mde_ros.nodes.player", str(source), "--no-progress", "--topics", image, info]
    player_command += ["--rate", str(rate), "--folder-rate", str(folder_rate)]
    # The node and the recorder: with either missing, the first frames would be lost.
    player_command += ["--wait-for", image, info, "--wait-count", "2", "--wait-limit", "30"]
    if heard != image:
        player_command += ["--remap", f"{image}:={heard}"]

    log = out / "log"
    log.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(terminable())
        stack.enter_context(_isolated(log))
        noted = {heard: kind, heard_info: "sensor_msgs/msg/CameraInfo"}
        recorder = stack.enter_context(Recorder(out / "output.mcap", RECORDED, noted))
        node = stack.enter_context(Process("node", node_command, log))
        ready = recorder.spin_until(
            lambda: node.check() and recorder.node.count_subscribers(heard_info) > 1, READY_LIMIT_S
        )
        if not ready:
            raise DemoError(f"the node was not ready within {READY_LIMIT_S:g} s; see {node.log}")
        player = stack.enter_context(Process("player", player_command, log))
        came = recorder.received[DEPTH]
        with _bar(source.name, len(stamps), progress) as show:

            def ended() -> bool:
                show(len(came))
                return node.check() and player.ended()

            if not recorder.spin_until(ended, length_s * 1.5 + READY_LIMIT_S):
                raise DemoError(f"the player did not come to its end; see {player.log}")
            # What is still on its way, and then the node's last word on all of it.
            recorder.spin_until(lambda: len(came) == len(stamps), 1.5)
            said = recorder.count["/diagnostics"]
            recorder.spin_until(lambda: recorder.count["/diagnostics"] > said + 1, 2.0)
            show(len(came))
    if not came:
        raise DemoError(f"no depth came back from the node; see {node.log}")
    sent = recorder.sent[heard]
    return Replay(
        output=out / "output.mcap",
        sent=len(stamps),
        stamps_ns=stamps,
        logged_ns=dict(came),
        latency_ms={s: (came[s] - sent[s]) * 1e-6 for s in came if s in sent},
        diagnostics=_last_diagnostics(out / "output.mcap"),
    )


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
        return Sample(Frame(f.image, f.camera, f.points, stamp), sample.truth_m, sample.name)

    def depth_of(self, frame: Frame) -> Prediction:
        """The depth that the node published for a frame; a model like any other to `evaluate`.

        Raises:
            DemoError: when it is not in the recording.
        """
        from mde_ros.datasets.bag_messages import depth_metres, stamp_ns

        logged = self._live.logged_ns[frame.stamp_ns]
        for topic, _, raw in self._bag.messages([DEPTH], logged, logged + 1):
            message = self._bag.decode(topic, raw)
            if stamp_ns(message.header) == frame.stamp_ns:
                return Prediction(depth_metres(message))
        raise DemoError(f"{self._live.output}: no depth of stamp {frame.stamp_ns}")


def judge(
    live: Replay,
    arrived: Arrived,
    recorded: dict[str, Any],
    name: str,
    show: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """results.json of a replay: accuracy of the recorded depth, latency and drops of the node."""
    from mde_ros.evaluation.evaluate import evaluate
    from mde_ros.evaluation.results import (
        VERSION,
        EvaluationError,
        latency_summary,
        machine,
        versions,
    )

    try:
        results = evaluate(arrived, recorded, name=name, progress=lambda done, total: show(done))
    except EvaluationError:  # nothing was measured; latency and drops can be told all the same
        empty = {"metrics": {}, "median_scaled": {}, "aggregation": "image", "per_image": []}
        results = {
            "version": VERSION,
            "settings": {},
            "data": {"name": name, "frames": len(arrived), "sha256": None},
            "models": [{"name": next(iter(recorded)), **empty}],
            "machine": machine(),
            "versions": versions(),
        }
    said, model = live.diagnostics, results["models"][0]
    latency = latency_summary(list(live.latency_ms.values()))
    model.update(weights_sha256=said.get("model_sha256"), latency_ms=latency)
    model.update(runtime=said.get("runtime"), device=said.get("device"))
    for image in model["per_image"]:
        stamp = live.stamps_ns[arrived.indices[image["index"]]]
        image["latency_ms"] = live.latency_ms.get(stamp)
    without_truth = results.pop("dropped", {}).get("no truth", 0)
    results["settings"]["node"] = {**PARAMETERS, "transport": "Fast DDS between processes"}
    results.update(
        latency_ms=latency,
        frames_in=live.sent,
        frames_out=len(live.logged_ns),
        dropped=live.dropped(),
        frames_without_truth=without_truth,
        # On the bag's clock, which moves in steps, its own latencies mean nothing.
        node={k: v for k, v in said.items() if not k.startswith("latency_")},
    )
    return results


class Process:
    """`python -m MODULE …` that ends with us, whatever happens; its output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log / f"{name}.log"
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, and we end it in good order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """SIGINT, then SIGTERM, then SIGKILL, with time to follow each."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    continue

    def check(self) -> bool:
        """True.

        Raises:
            DemoError: when the process has ended, with what it said last.
        """
        if self._process.poll() is not None:
            raise DemoError(f"the {self.name} ended early: {self._last_words()}")
        return True

    def ended(self) -> bool:
        """Whether it has ended well.

        Raises:
            DemoError: when it failed, with what it said last.
        """
        if self._process.poll():
            raise DemoError(f"the {self.name} failed: {self._last_words()}")
        return self._process.returncode == 0

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        telling = [x for x in lines if "rror" in x or "ERROR" in x or "cannot" in x] or lines
        return telling[-1].strip() if telling else f"exit code {self._process.returncode}"


_libc = ctypes.CDLL(None)  # loaded here, for after a fork of threads there is little one may do


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _isolated(log: Path) -> Iterator[None]:
    """A ROS domain of our own on this machine, and the Fast DDS profile for large messages."""
    from mde_ros.nodes.process import dds_environment

    before = dict(os.environ)
    with own_domain() as changes:
        changes["ROS_LOG_DIR"] = str(log.resolve())
        changes |= dds_environment()
        os.environ.update(changes)
        try:
            yield
        finally:
            for name in changes:
                os.environ.pop(name)
            os.environ.update(before)


def _sample_topics() -> tuple[str, str]:
    from mde_ros.datasets.bag_messages import IMAGE_TOPIC, INFO_TOPIC

    return IMAGE_TOPIC, INFO_TOPIC


def _last_diagnostics(output: Path) -> dict[str, str]:
    from mde_ros.datasets.bag_file import Bag

    values: dict[str, str] = {}
    with Bag(output) as bag:
        if "/diagnostics" not in bag.topics:
            return values
        for topic, _, raw in bag.messages(["/diagnostics"]):
            for status in bag.decode(topic, raw).status:
                values = {v.key: v.value for v in status.values}
    return values


def _is_count(key: str) -> bool:
    return key.startswith(("frames_", "dropped."))


@contextmanager
def _bar(name: str, total: int, shown: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeLeft())
    shown = shown and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
