"""Drives in traffic: what keeps the camera's speed, what comes towards it, and where both go."""

from itertools import pairwise

import numpy as np
import pytest

from mde_ros.simulation.traffic import LANE_M, column, random_drive, ride

RNG = np.random.default_rng
SPEED, SECONDS = 6.0, np.arange(5) / 2


def ways(scene):
    """x and y (cars, times, 2) and heading (cars,) of the cars that move, from their poses."""
    cars = [o for o in scene.objects if o.name == "car" and o.motion]
    T = np.array([[o.pose(t) for t in SECONDS] for o in cars]).reshape(-1, len(SECONDS), 4, 4)
    return T[:, :, :2, 3], T[:, 0, :2, 0]


def test_the_own_lane_keeps_the_speed_of_the_camera_and_the_other_comes_towards_it():
    own_seen = other_seen = 0
    for seed in range(12):
        place, forward = ways(random_drive(RNG(seed), SPEED))
        velocity = np.diff(place, axis=1) / np.diff(SECONDS)[:, None]
        own = place[:, 0, 1] < 0
        assert np.allclose(velocity[..., 0], velocity[:, :1, 0]) and np.allclose(
            velocity[..., 1], 0
        )
        assert np.allclose(velocity[own, :, 0], SPEED, rtol=0.051)
        assert (velocity[~own, :, 0] < -2.9).all()
        assert np.allclose(place[..., 1], np.where(own, -LANE_M, LANE_M)[:, None])
        assert np.allclose(forward, np.stack([np.where(own, 1, -1), 0 * own], 1))
        own_seen, other_seen = own_seen + own.any(), other_seen + (~own).any()
    assert own_seen >= 4 and other_seen >= 4


@pytest.mark.parametrize("speed", [5.0, 0.0])
def test_cars_of_a_column_do_not_touch(speed):
    def ends(thing):
        centres = np.array([(thing.pose(0) @ part.pose)[0, 3] for part in thing.parts])
        return centres.min() - 0.3, centres.max() + 0.3

    cars = sorted(ends(each) for each in column(RNG(1), -LANE_M, 5.0, (1, 3.5), speed))
    assert len(cars) > 8
    assert all(one[1] < next_one[0] for one, next_one in pairwise(cars))


def test_the_camera_goes_along_its_lane_at_its_speed_and_looks_where_it_goes():
    x, y, heading = np.array(ride(RNG(2), SPEED, 0.1, 200)).T
    assert np.allclose(np.diff(x), 0.6) and np.abs(y + LANE_M).max() < 0.3
    middle = (heading[1:] + heading[:-1]) / 2
    assert np.allclose(np.arctan2(np.diff(y), np.diff(x)), middle, atol=1e-3)
