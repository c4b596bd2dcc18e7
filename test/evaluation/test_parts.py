"""Many data sets are evaluated as one, ended at any time, gone on with, and lost by none."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.evaluation import run as running
from mde_ros.evaluation.evaluate import EvaluationError, evaluate, run_evaluate
from mde_ros.evaluation.parts import Job, find_parts
from mde_ros.evaluation.results import ResultsError, load_results
from mde_ros.evaluation.run import EvaluateSettings, Tally
from mde_ros.pipeline import DepthPipeline

H, W = 48, 64
TIMES = ("latency_ms", "seconds", "speed", "machine")


def depths(n, seed):
    """Slopes with a box in front, and a hole."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        depth = np.linspace(5, 2, H, dtype=np.float32)[:, None].repeat(W, 1)
        y, x = rng.integers(2, 20, 2)
        depth[y : y + 15, x : x + 20] = rng.uniform(1, 1.8)
        depth[:5, :7] = 0
        out.append(depth)
    return out


@pytest.fixture
def bags(tmp_path, write_bag):
    """A folder of three bags of 4, 1 and 5 frames."""
    for i, n in enumerate((4, 1, 5)):
        write_bag(tmp_path / "fleet" / f"{'abc'[i]}.mcap", depths(n, i), start_s=100 * (i + 1))
    return tmp_path / "fleet"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Models are not timed alone, and no pictures taken: both cost more than all the frames."""
    monkeypatch.setattr(running, "ALONE_CALLS", 1)
    monkeypatch.setattr("mde_ros.evaluation.evaluate.take_pictures", lambda *a: [])


def timeless(value):
    """Results without anything that a clock has told."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def close(a, b):
    """Equality of nested values but for the order in which floats were added."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == (pytest.approx(b, rel=1e-9, abs=1e-12) if isinstance(b, float) else b)


def run(data, model, out, **more):
    data = data if isinstance(data, list) else str(data)
    code = run_evaluate(data, [model], json_path=str(out), **more)
    return code, load_results(out)


class Joined:
    """All frames of several data sets, one after the other."""

    def __init__(self, paths):
        self.samples = [s for p in paths for s in open_dataset(p)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_a_folder_of_bags_scores_as_all_their_frames_in_one_data_set(bags, bright_model, tmp_path):
    code, results = run(bags, bright_model, tmp_path / "r.json")
    models = {"bright": DepthPipeline(PipelineSettings(model=bright_model))}
    together = evaluate(Joined(sorted(bags.iterdir())), models)
    assert code == 0 and results["frames_out"] == 10 and not results["interrupted"]
    ours, theirs = (timeless(r["models"][0]) for r in (results, together))
    frames = [[i["index"] for i in m.pop("per_image")] for m in (ours, theirs)]
    assert frames[0] == frames[1] == list(range(10))
    assert close(ours, theirs)
    for part, path in zip(results["parts"], sorted(bags.iterdir())):
        alone = evaluate(open_dataset(path), models)
        assert part["name"] == path.name and part["sha256"] == alone["data"]["sha256"]
        assert part["frames_out"] == alone["frames_out"]
        for kind in ("metrics", "median_scaled"):
            assert close(part["models"][0][kind], alone["models"][0][kind])


def test_pictures_of_frames_are_found_in_their_bags(bags, bright_model, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "mde_ros.evaluation.evaluate.take_pictures",
        lambda dataset, *a: taken.extend(dataset[i].name for i in (0, 4, 9)) or [],
    )
    run(bags, bright_model, tmp_path / "r.json")
    assert taken == ["a/000000", "b/000000", "c/000004"]


def test_several_paths_and_folders_are_one_list_without_doubles(bags, tmp_path):
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "x.mcap").symlink_to(bags / "a.mcap")
    found = find_parts([bags, bags / "b.mcap", tmp_path / "single", tmp_path / "none"])
    assert [p.name for p in found] == ["a.mcap", "b.mcap", "c.mcap", "single", "none"]


def test_a_bag_that_fails_is_told_and_the_others_are_kept(bags, bright_model, tmp_path, capsys):
    good = [str(bags / "a.mcap"), str(bags / "c.mcap")]
    _, without = run(good, bright_model, tmp_path / "good.json")
    whole = (bags / "b.mcap").read_bytes()
    (bags / "b.mcap").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    code, results = run(bags, bright_model, tmp_path / "r.json")
    assert code == 1
    assert "b.mcap: cannot be read as a bag" in results["problems"][0]
    told = capsys.readouterr().out.replace("\n", "")
    assert "b.mcap: cannot be read as a bag" in told and "failed" in told
    assert ["problem" in part for part in results["parts"]] == [False, True, False]
    assert timeless(results["models"]) == timeless(without["models"])


def test_bags_that_all_fail_are_one_sentence(bags, bright_model, tmp_path):
    for bag in bags.iterdir():
        bag.write_bytes(b"hello")
    with pytest.raises(EvaluationError, match=r"no frame could be scored .*cannot be read"):
        run(bags, bright_model, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


@contextmanager
def ended_after(monkeypatch, frames):
    """Ctrl-C before the frame of this number, counted over all data sets."""
    left = [frames]

    @contextmanager
    def ctrl_c():
        def pressed():
            left[0] -= 1
            return left[0] < 0

        yield pressed

    with monkeypatch.context() as patched:
        patched.setattr("mde_ros.evaluation.evaluate.until_ctrl_c", ctrl_c)
        yield


@pytest.mark.parametrize("frames", [2, 7])  # within the first bag and within the last
def test_a_run_ended_and_resumed_has_the_numbers_of_one_to_the_last_bit(
    frames, bags, bright_model, tmp_path, monkeypatch
):
    _, whole = run(bags, bright_model, tmp_path / "whole.json")
    out = tmp_path / "r.json"
    with ended_after(monkeypatch, frames):
        code, ended = run(bags, bright_model, out)
    assert code == 130 and ended["interrupted"] and 0 < ended["frames_out"] < 10
    code, resumed = run(bags, bright_model, out, resume=True)
    assert code == 0 and timeless(resumed) == timeless(whole)
    assert {p.name for p in tmp_path.glob("r.*")} == {"r.json", "r.npz"}


class Crash(RuntimeError):
    """What no part of the program expects."""


def test_a_run_that_crashed_goes_on_from_what_it_kept(bags, bright_model, tmp_path, monkeypatch):
    _, whole = run(bags, bright_model, tmp_path / "whole.json")
    out, read, opened = tmp_path / "r.json", [], Job.open

    class Crashing:
        def __init__(self, dataset):
            self.dataset = dataset

        def __len__(self):
            return len(self.dataset)

        def __getitem__(self, index):
            read.append(index)
            if len(read) == 9:
                raise Crash
            return self.dataset[index]

    monkeypatch.setattr(Job, "open", lambda job, path: Crashing(opened(job, path)))
    monkeypatch.setattr(running, "KEEP_PERIOD_S", 0.0)
    monkeypatch.setattr(running, "KEEP_SHARE", 1e9)
    with pytest.raises(Crash):
        run(bags, bright_model, out)
    assert read == [0, 1, 2, 3, 0, 0, 1, 2, 3] + ([4] if len(read) > 9 else [])
    assert not out.exists() and (tmp_path / "r.json.partial").is_dir()
    read[:] = [None] * 9
    code, resumed = run(bags, bright_model, out, resume=True)
    assert code == 0 and timeless(resumed) == timeless(whole)
    assert read[9:] == [2, 3, 4]  # the last that was kept, and what follows it


def test_a_failed_bag_that_was_mended_is_all_that_a_resumed_run_reads(
    bags, bright_model, tmp_path, monkeypatch
):
    _, whole = run(bags, bright_model, tmp_path / "whole.json")
    opened, seen, broken = Job.open, [], [True]

    def opening(job, path):
        seen.append(path.name)
        if path.name == "b.mcap" and broken.pop():
            raise OSError("the network is down")
        return opened(job, path)

    monkeypatch.setattr(Job, "open", opening)
    code, _ = run(bags, bright_model, tmp_path / "r.json")
    assert code == 1
    seen.clear()
    broken.append(False)
    code, resumed = run(bags, bright_model, tmp_path / "r.json", resume=True)
    assert code == 0 and seen[0] == "b.mcap"
    assert timeless(resumed) == timeless(whole)


def test_resuming_with_other_settings_models_or_data_is_refused(
    bags, bright_model, wall_model, tmp_path, monkeypatch
):
    out = tmp_path / "r.json"
    same = (bags, bright_model, out)
    with ended_after(monkeypatch, 3):
        run(*same)
    for told, other in (
        (r"settings \(last 0, now 2\)", lambda: run(*same, settings={"last": 2}, resume=True)),
        (
            r"models \(bright [0-9a-f]+, now nothing\)",
            lambda: run(bags, wall_model, out, resume=True),
        ),
        ("data .*mcap", lambda: run(bags / "a.mcap", bright_model, out, resume=True)),
    ):
        with pytest.raises(ResultsError, match=f"begun with other {told}.* leave out --resume"):
            other()
    identity = tmp_path / "r.json.partial" / "identity.json"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "version": 0}))
    with pytest.raises(ResultsError, match=r"begun with other version \(0, now 1\)"):
        run(bags, bright_model, out, resume=True)
    identity.write_text("{")
    with pytest.raises(ResultsError, match="cannot be gone on from"):
        run(bags, bright_model, out, resume=True)
    with pytest.raises(ConfigError, match="together with --json"):
        run_evaluate(str(bags), [bright_model], resume=True)
    code, begun_anew = run(bags, bright_model, out)
    assert code == 0 and begun_anew["frames_out"] == 10


def test_frames_that_changed_are_no_data_to_go_on_with(bags, bright_model):
    """Even where size and time of the file are as before."""
    models = {"bright": DepthPipeline(PipelineSettings(model=bright_model))}
    settings = EvaluateSettings()
    first, then = Tally(models, settings.score), Tally(models, settings.score)
    asked = iter([False, False, True])
    running.run(open_dataset(bags / "a.mcap"), models, settings, first, stop=lambda: next(asked))
    then.merge(first.state())
    with pytest.raises(ResultsError, match=r"a/000001: .* has changed since"):
        running.run(open_dataset(bags / "c.mcap"), models, settings, then)


def test_ray_gives_the_numbers_of_one_machine_and_tells_the_failed_bag(
    bags, bright_model, tmp_path
):
    pytest.importorskip("ray", reason="ray is not installed (mde_ros[ray])")
    (bags / "b.mcap").write_bytes(b"hello")
    one, here = run(bags, bright_model, tmp_path / "here.json")
    two, there = run(bags, bright_model, tmp_path / "there.json", ray="local")
    assert one == two == 1
    assert timeless(here) == timeless(there)


def test_an_address_without_a_cluster_is_one_sentence(bags, bright_model, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (mde_ros[ray])")
    with pytest.raises(EvaluationError, match=r"expected a cluster at .*, found none"):
        run(bags, bright_model, tmp_path / "r.json", ray="127.0.0.1:1")
