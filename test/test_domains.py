"""The switch between domains: held against planted sequences of distances."""

import numpy as np
import pytest

from mde_ros.config import ConfigError
from mde_ros.domains import FRAMES, MARGIN, DomainSwitch


def run(sequence, **options):
    switch = DomainSwitch(("office", "street", "lab"), **options)
    return [switch(distances) for distances in sequence]


def test_first_frame_takes_the_nearest():
    assert run([[3.0, 1.0, 2.0]]) == [1]


def test_alternating_distances_never_switch_however_far_apart():
    frames = [[1.0, 0.2, 3.0] if i % 2 else [0.2, 1.0, 3.0] for i in range(100)]
    assert set(run(frames)) == {0}


def test_rivals_that_take_turns_are_no_streak():
    frames = [[9.0, 9.5, 9.5]] + [[5.0, 1.0, 2.0], [5.0, 2.0, 1.0]] * 50
    assert set(run(frames)) == {0}


def test_noise_within_the_margin_moves_nothing():
    rng = np.random.default_rng(0)
    noise = 1 + rng.uniform(-MARGIN / 2.1, MARGIN / 2.1, (1000, 3))
    assert len(set(run(noise))) == 1


def test_real_change_switches_once_after_the_same_number_of_frames():
    """Noise of 20 % on distances of 1 and 2: before the change one domain, after it the other."""
    rng = np.random.default_rng(1)
    before = rng.uniform(0.8, 1.2, (50, 3)) * [1, 2, 2]
    after = rng.uniform(0.8, 1.2, (50, 3)) * [2, 2, 1]
    assert run([*before, *after]) == [0] * (50 + FRAMES - 1) + [2] * (50 - FRAMES + 1)


def test_switches_are_never_nearer_than_the_streak_in_any_noise():
    chosen = np.array(run(np.random.default_rng(2).exponential(1, (5000, 3))))
    switches = np.flatnonzero(np.diff(chosen))
    assert len(switches) > 5 and np.diff(switches).min() >= FRAMES


def test_named_domain_is_taken_whatever_the_distances_say():
    assert run([[0.0, 0.0, 9.0]] * 20, wanted="lab") == [2] * 20


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("office", "lab"), "domain: expected one of auto, office, lab, got 'offcie'"),
        ((), "domain: expected auto, the model has no domains, got 'offcie'"),
    ],
)
def test_unknown_domain_lists_those_there_are(names, message):
    with pytest.raises(ConfigError, match=message):
        DomainSwitch(names, "offcie")
