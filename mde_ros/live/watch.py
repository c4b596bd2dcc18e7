"""mde watch: the depth of a running node, scored frame by frame while its bag is played."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mde_ros.config import as_dict
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.live.played import (
    DIAGNOSTICS,
    DIAGNOSTICS_TYPE,
    PlayedTopics,
    counts_of,
    dropped,
    node_says,
    stamps_of,
    topics_of,
)

DEPTH_TYPE = "sensor_msgs/msg/Image"
LAST_ONES_S = 1.0  # that depth may still be on its way after Ctrl-C


class Scoreboard:
    """Scores depth images as they come, each against the truth of its stamp.

    Args:
        dataset: what is played.
        stamps_ns: of its images, in their order.
        topics: of what is played.
    """

    def __init__(self, dataset: Dataset, stamps_ns: list[int], topics: PlayedTopics) -> None:
        from mde_ros.evaluation.score import Scorer

        self._dataset, self._topics = dataset, topics
        self._missing = {stamp: i for i, stamp in enumerate(stamps_ns)}
        self._scorer = Scorer()
        self.frames = len(stamps_ns)
        self.came = self.strange = 0  # depth images, and those of no image that is played
        self.sent_ns: Mapping[int, int] = {}  # stamp → when its image was sent
        self.received_ns: dict[int, int] = {}
        self.said: dict[str, str] = {}
        self._before: Counter[str] = Counter()  # what the node had counted before the first image

    def complete(self) -> bool:
        """Whether the depth of every image has come."""
        return not self._missing

    def take_depth(self, topic: str, kind: str, received_ns: int, cdr: bytes) -> None:
        """Score a serialized depth image.

        Raises:
            ValueError: when it is of another size than its truth, or the data set breaks off.
        """
        from mde_ros.datasets.bag_messages import JAZZY, depth_metres, stamp_ns
        from mde_ros.evaluation.measure import counted
        from mde_ros.evaluation.pictures import rectified_truth

        message: Any = JAZZY.deserialize_cdr(cdr, kind)
        stamp = stamp_ns(message.header)
        if stamp not in self._missing:
            self.strange += stamp not in self.received_ns  # a bag that is played again is not
            return
        index = self._missing.pop(stamp)
        self.came, self.received_ns[stamp] = self.came + 1, received_ns
        sample = self._dataset[index]
        truth_m = rectified_truth(sample)
        if truth_m is not None and counted(truth_m, self._scorer.settings).any():
            image = self._scorer.add(sample.name, depth_metres(message), truth_m, stamp)
            image.update(index=index, latency_ms=self._latencies_ms([stamp]).get(stamp))

    def take_diagnostics(self, topic: str, kind: str, received_ns: int, cdr: bytes) -> None:
        """Keep what the node says of itself."""
        self.said.update(node_says(cdr, self._topics.heard))
        if not self.sent_ns:
            self._before = counts_of(self.said)

    def line(self) -> str:
        """What is known so far, in one line."""
        results = self.results("")
        metrics, latency = results["models"][0]["metrics"], results["latency_ms"]
        out = [f"{self.came} of {self.frames} frames"]
        if metrics.get("abs_rel") is not None:
            out += [f"AbsRel {metrics['abs_rel']:.3f}", f"RMSE {metrics['rmse_m']:.3f} m"]
            out += [f"δ < 1.25 {metrics['delta1']:.3f}"]
        if latency:
            out += [f"latency p50 {latency['p50']:.0f}, p95 {latency['p95']:.0f} ms"]
        lost = {k: n for k, n in results["dropped"].items() if not k.startswith("not received")}
        return "; ".join(out + [f"{n} dropped: {reason}" for reason, n in lost.items()])

    def results(self, name: str) -> dict[str, Any]:
        """What results.json holds, so far."""
        from mde_ros.evaluation.results import VERSION, latency_summary, machine, versions

        latency = latency_summary(list(self._latencies_ms(self.received_ns).values()))
        counts = counts_of(self.said)
        counts.subtract(self._before)
        model = {"name": self.said.get("model", "node"), "file": None}
        model |= {key: self.said.get(key) for key in ("runtime", "device")}
        return {
            "version": VERSION,
            "settings": {"evaluate": {"score": as_dict(self._scorer.settings)}},
            "data": {"name": name, "frames": len(self._scorer.images), "sha256": None},
            "models": [
                {
                    **model,
                    "weights_sha256": self.said.get("model_sha256"),
                    **self._scorer.result(),
                    "latency_ms": latency,
                }
            ],
            "latency_ms": latency,
            "frames_in": len(self.sent_ns),
            "frames_out": self.came,
            "dropped": dropped(counts, len(self.sent_ns), self.came),
            "machine": machine(),
            "versions": versions(),
        }

    def _latencies_ms(self, stamps: Iterable[int]) -> dict[int, float]:
        sent, received = self.sent_ns, self.received_ns
        return {s: (received[s] - sent[s]) * 1e-6 for s in stamps if s in sent}


def run_watch(
    data: str,
    depth: str = "/depth/image_rect",
    *,
    json_path: str | None = None,
    topics: Mapping[str, Any] | None = None,
    folder_rate: float = 10.0,
    every_s: float = 2.0,
) -> int:
    """`mde watch`: score the depth that a node publishes until all has come, or until Ctrl-C.

    Somebody else starts the node and plays the data, once, such as replay.launch.py.

    Args:
        data: bag or RGB-D folder that is played.
        depth: topic of the node's depth.
        json_path: results.json to be written at the end; "-" is stdout.
        topics: more arguments of open_dataset, such as a bag's topics.
        folder_rate: frames per second at which a folder is played.
        every_s: seconds between two lines of what is known so far.

    Returns:
        0.

    Raises:
        ValueError: on a user's error, in one sentence.
    """
    from mde_ros.evaluation.results import print_table, write_json
    from mde_ros.nodes.listener import Listener
    from mde_ros.nodes.player import open_source, terminable
    from mde_ros.nodes.process import dds_environment

    dataset = open_dataset(data, **(topics or {}))
    with open_source(data, folder_rate) as source:
        played, stamps = topics_of(source, dataset), stamps_of(source, dataset)
    board = Scoreboard(dataset, stamps, played)
    os.environ.update(dds_environment())
    out = sys.stderr if json_path == "-" else sys.stdout
    with terminable():
        with Listener() as ears:
            ears.hear(depth, DEPTH_TYPE, board.take_depth)
            ears.hear(DIAGNOSTICS, DIAGNOSTICS_TYPE, board.take_diagnostics)
            ears.hear(played.heard, played.kind)
            ears.hear(played.heard_info, "sensor_msgs/msg/CameraInfo")
            board.sent_ns = ears.sent[played.heard]
            try:
                while not ears.spin_until(board.complete, every_s):
                    print(board.line(), file=out, flush=True)
            except KeyboardInterrupt:
                pass
            for number in (signal.SIGINT, signal.SIGTERM):  # a second one would spoil the end
                signal.signal(number, signal.SIG_IGN)
            ears.spin_until(board.complete, LAST_ONES_S)
        if not board.came:
            strange = f"; {board.strange} came with other stamps" if board.strange else ""
            print(f"{data}: no depth came on {depth}{strange}", file=sys.stderr)
            return 0
        results = board.results(Path(data).resolve().name)
        print_table(results, stderr=json_path == "-")
        if json_path:
            write_json(json_path, results)
    return 0
