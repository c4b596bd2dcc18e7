"""Drives: a camera that goes along in traffic, as a car's does.

What a camera in a lane sees most are cars that keep its own speed, which stand still in its image,
and oncoming ones, which rush by: what depth learnt from video gets wrong.
"""

import numpy as np

from mde_ros.simulation.movers import car
from mde_ros.simulation.shapes import Patrol, Scene, SceneObject, yaw_pose
from mde_ros.simulation.streets import random_street

Rng = np.random.Generator
LANE_M = 1.75  # from the middle of the road to that of a lane
FIRST_M, LAST_M = -60.0, 120.0  # between them traffic goes along x


def random_drive(rng: Rng, speed: float) -> Scene:
    """A street for a camera that begins at (0, -LANE_M) and goes along x, and its traffic.

    Args:
        speed: of the camera, m/s; often that of its lane.
    """
    scene, _ = random_street(rng, least_road_m=5.2)
    scene.objects = [o for o in scene.objects if o.name != "car" or o.motion is None]
    own = str(rng.choice(["convoy", "queue", "free"], p=[0.65, 0.2, 0.15]))
    if own == "convoy":
        pace = speed * rng.uniform(0.95, 1.05)
        scene.objects += column(rng, -LANE_M, rng.uniform(4, 13), (3, 18), pace)
    elif own == "queue":
        scene.objects += column(rng, -LANE_M, rng.uniform(24, 38), (1, 3.5), 0.0)
    if rng.random() < 0.7:
        scene.objects += column(rng, LANE_M, rng.uniform(4, 18), (4, 22), -rng.uniform(3, 9))
    else:
        scene.objects += column(rng, LANE_M, rng.uniform(0, 13), (1, 3.5), 0.0)
    return scene


def column(
    rng: Rng, y: float, x: float, gap: tuple[float, float], speed: float
) -> list[SceneObject]:
    """Cars one after the other along a lane.

    Args:
        y: of the lane.        x: where the first ends at time 0, metres.
        gap: least and largest distance from one car to the next.
        speed: along x, m/s, less than 0 for oncoming ones; 0 stands.
    """
    objects, forth = [], y < 0
    while x < LAST_M - 20:
        piece = car(rng)
        x += piece.half_size[0]
        if speed:
            ends = np.array([[FIRST_M, y, 0.0], [LAST_M, y, 0.0]])[:: 1 if forth else -1]
            vehicle = piece.objects[0]
            vehicle.motion = Patrol(ends[0], ends[1], abs(speed), abs(x - ends[0, 0]))
        else:
            vehicle = piece.objects[0].moved(yaw_pose(x, y, 0.0, 0.0 if forth else np.pi))
        objects.append(vehicle)
        x += piece.half_size[0] + rng.uniform(*gap)
    return objects


def ride(rng: Rng, speed: float, interval_s: float, steps: int) -> list[tuple[float, float, float]]:
    """The way of such a camera as (x, y, heading): along its lane, swaying a little."""
    phase, length, width = rng.uniform(0, 2 * np.pi), rng.uniform(15, 40), rng.uniform(0, 0.3)
    x = speed * interval_s * np.arange(steps)
    angle = phase + 2 * np.pi * x / length
    heading = np.arctan(width * 2 * np.pi / length * np.cos(angle))
    return list(zip(x, -LANE_M + width * np.sin(angle), heading))
