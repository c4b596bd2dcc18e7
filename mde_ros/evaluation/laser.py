"""A 2-D LiDAR for the benchmark: its messages, what the node makes of them, what that costs."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from mde_ros.datasets.scans import scan_returns
from mde_ros.frame import Frame
from mde_ros.geometry import in_view, pose

FIELD_OF_VIEW = np.radians(270)  # of a usual safety scanner
LARGEST_ADDITION_MS = 0.5  # what a scan of 720 beams may add to everything but the network
LARGEST_RATIO = 1.5  # of the networks' times

# Level, looking ahead, 20 cm below the camera; its x is the camera's z.
LASER_TO_CAMERA = [0, 0.2, 0, 0.5, -0.5, 0.5, 0.5]  # x y z qx qy qz qw
T_CAMERA_LASER = pose(np.array(LASER_TO_CAMERA[:3]), np.array(LASER_TO_CAMERA[3:]))


def make_scans(beams: int, count: int = 8, seed: int = 0) -> list[SimpleNamespace]:
    """Messages with the fields of a LaserScan, of walls some metres away."""
    rng = np.random.default_rng(seed)
    return [
        SimpleNamespace(
            angle_min=-FIELD_OF_VIEW / 2,
            angle_max=FIELD_OF_VIEW / 2,
            angle_increment=FIELD_OF_VIEW / (beams - 1),
            time_increment=0.0,
            range_min=0.05,
            range_max=30.0,
            ranges=array("f", rng.uniform(1, 6, beams)),
        )
        for _ in range(count)
    ]


def with_points(frame: Frame, scan: Any) -> Frame:
    """The frame with the returns of a scan that its camera, without distortion, sees."""
    points = scan_returns(scan).seen_from(T_CAMERA_LASER, T_CAMERA_LASER)
    seen, _, _ = in_view(points, frame.camera)
    return replace(frame, points=points[seen])


def scan_costs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every row of benchmark.json that takes points beside the first that does not, by runtime.

    `adds_ms` is what the scan adds to everything but the network, `network_ratio` how many times
    as long the network takes.
    """
    costs = []
    for row in rows:
        same = [r for r in rows if (r["runtime"], r["device"]) == (row["runtime"], row["device"])]
        mono = next((r for r in same if not r["takes_points"]), None)
        if row["takes_points"] and mono:
            costs.append(
                {
                    "name": row["name"],
                    "beside": mono["name"],
                    "runtime": row["runtime"],
                    "adds_ms": row["other_ms"] - mono["other_ms"],
                    "network_ratio": row["network_ms"] / mono["network_ms"],
                }
            )
    return costs


def cost_sentence(cost: Mapping[str, Any]) -> str:
    """One entry of scan_costs in words, with what is wanted."""
    return (
        f"{cost['name']} on {cost['runtime']}: its scan adds {cost['adds_ms']:.2f} ms to everything"
        f" but the network (wanted <= {LARGEST_ADDITION_MS:g}); the network takes"
        f" {cost['network_ratio']:.2f} times as long as {cost['beside']} (<= {LARGEST_RATIO:g})"
    )
