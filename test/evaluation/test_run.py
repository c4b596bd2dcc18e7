"""Reading and measuring lie in the shadow of the models, in constant memory, in order."""

import threading
import time
import weakref

import numpy as np
import pytest

from mde_ros.datasets import Sample
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.evaluation import run as running
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.run import AHEAD, BEHIND
from mde_ros.frame import Camera, Frame, Prediction

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


class Watched:
    """Frames that are made when they are asked for; it knows which of them are still held."""

    def __init__(self, n, pause_s=0.0):
        self.n, self.pause_s, self.made = n, pause_s, []  # which a copy shares

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        time.sleep(self.pause_s)
        truth = np.full((H, W), 2.0 + 0.1 * index, np.float32)
        sample = Sample(Frame(np.zeros((H, W, 3), np.uint8), CAMERA), truth, f"f{index}")
        self.made.append(weakref.ref(sample))
        return sample

    def held(self):
        return sum(sample() is not None for sample in self.made)


class Opened:
    """What only the thread may use and close that has opened it, as a database."""

    def __init__(self, closed):
        self.thread, self.closed = threading.get_ident(), closed

    def use(self):
        assert threading.get_ident() == self.thread

    def __del__(self):
        self.closed.append(threading.get_ident() == self.thread)


class Bound(Watched):
    """Frames out of something that is opened when the first of them is asked for."""

    name = "bound"

    def __init__(self, n, closed):
        super().__init__(n)
        self.closed, self.opened = closed, None

    def __getstate__(self):
        return {**self.__dict__, "opened": None}

    def __getitem__(self, index):
        self.opened = self.opened or Opened(self.closed)
        self.opened.use()
        return super().__getitem__(index)


def wall(frame):
    return Prediction(np.full((H, W), 2.0, np.float32))


def test_a_run_takes_as_long_as_its_models_when_nothing_else_takes_longer(monkeypatch):
    """Reading, predicting and measuring a frame take 40 ms each, and one after the other 120."""
    measure = running.measure

    def slow_measure(*arguments):
        time.sleep(0.04)
        return measure(*arguments)

    def slow_wall(frame):
        time.sleep(0.04)
        return wall(frame)

    monkeypatch.setattr(running, "measure", slow_measure)
    results = evaluate(Watched(25, pause_s=0.04), {"slow": slow_wall})
    assert results["frames_out"] == 25
    assert 25 * 0.04 < results["seconds"] < 25 * 0.08
    speed = results["speed"]
    assert 20 < speed["models_alone_frames_per_s"] < 25
    assert 0.5 < speed["share_in_models"] <= 1


def test_only_a_few_frames_are_held_however_many_there_are():
    data, most = Watched(60), []

    def model(frame):
        most.append(data.held())
        return wall(frame)

    evaluate(data, {"m": model})
    assert max(most) <= AHEAD + BEHIND + 4  # and those that threads have in hand


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: WithScan(d, VirtualScan(0.2))])
def test_what_a_data_set_opens_is_used_and_closed_by_the_thread_that_reads(wrap):
    closed = []
    data = wrap(Bound(3, closed))
    results = evaluate(data, {"m": wall})
    assert results["frames_out"] == 3 and closed == [True]
    assert data[0].name == "f0"  # and another thread opens it for itself


def test_every_model_comes_first_as_often_as_the_others():
    called = []

    def noting(name):
        def model(frame):
            called.append(name)
            return wall(frame)

        return model

    evaluate(Watched(9), {name: noting(name) for name in "abc"})
    turns = "".join(called[-27:])  # before, each was timed alone
    assert turns == "abcbcacab" * 3
