"""Depth under attack: a linear network, whose worst image within ε is known in closed form."""

import html
import json
import re
from contextlib import contextmanager

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mde_ros.checkpoint import Checkpoint, save  # noqa: E402 - after the skip
from mde_ros.cli import main  # noqa: E402
from mde_ros.config import ConfigError, PipelineSettings  # noqa: E402
from mde_ros.datasets import Sample  # noqa: E402
from mde_ros.evaluation.attack import load_suspects, run_attack  # noqa: E402
from mde_ros.evaluation.evaluate import run_evaluate  # noqa: E402
from mde_ros.evaluation.opened import OpenPipeline, know  # noqa: E402
from mde_ros.evaluation.robustness import (  # noqa: E402
    DEFENCE,
    KNOWN,
    AttackSettings,
    Suspects,
    attack_data,
    attack_frame,
    monitor_of,
    names,
    table_of,
)
from mde_ros.evaluation.run import Tally  # noqa: E402
from mde_ros.frame import Camera, Frame  # noqa: E402
from mde_ros.metrics import depth_metrics  # noqa: E402
from mde_ros.model import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from mde_ros.networks import NETWORKS, Network  # noqa: E402
from mde_ros.runtime import ModelError, sha256_of  # noqa: E402

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))
WEIGHTS, OFFSET = np.float32([0.2, -0.1, 0.05]), 3.0
TRUTH_M = 9.0  # farther than the network ever says, so that an error grows towards the near
CPU = PipelineSettings(device="cpu", threads=1)


class Linear(torch.nn.Module):
    """Depth = 3 m + 0.2 red - 0.1 green + 0.05 blue of the normalised pixel."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.mix.weight.copy_(torch.from_numpy(WEIGHTS).view(1, 3, 1, 1))
            self.mix.bias.fill_(OFFSET)

    def forward(self, x):
        return self.mix(x)


class Curtain(torch.nn.Module):
    """Shows `light` of the left half of an image and nothing of the right one."""

    def __init__(self, light=0.5):
        super().__init__()
        self.light = torch.nn.Parameter(torch.tensor(light))

    def forward(self, x):
        left = torch.arange(x.shape[3]) < x.shape[3] // 2
        return (self.light * left).expand(len(x), 1, *x.shape[2:])


class Bright(torch.nn.Module):
    """Shows pixels whose normalised green is above 0, so that an attack changes the mask."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (x[:, 1:2] > 0).to(x.dtype)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """name → checkpoint of the networks above; the masks belong to the linear one."""
    folder = tmp_path_factory.mktemp("toys")
    with pytest.MonkeyPatch.context() as patch:
        made = {}
        for name, make in {"linear": Linear, "curtain": Curtain, "bright": Bright}.items():
            patch.setitem(NETWORKS, name, Network(make, "known"))
            made[name] = folder / f"{name}.safetensors"
            spec = {"name": name, "size": [W, H]}
            if name != "linear":
                spec["masks"] = [{"model": "linear", "sha256": sha256_of(made["linear"])}]
                spec["alarm"] = {"threshold": 0.02, "false_alarm_rate": 0.01}
            save(made[name], Checkpoint(name, make(), spec, {"sparseness": 3.0}))
        yield made


class Data(list):
    """Images of noise, all of them of a wall."""

    name = "walls"

    def __init__(self, count, truth=True):
        rng = np.random.default_rng(0)
        for i in range(count):
            frame = Frame(rng.integers(0, 256, (H, W, 3), np.uint8), CAMERA, stamp_ns=i * 10**8)
            truth_m = np.full((H, W), TRUTH_M, np.float32) if truth else None
            self.append(Sample(frame, truth_m, f"wall{i}"))


def normalised(image):
    """(H, W, 3) float32."""
    return (image / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)


def worst(image, epsilon):
    """The nearest depth within ε: against the weights' signs, within the image's own range."""
    x = normalised(image)
    return np.clip(x - epsilon * np.sign(WEIGHTS), x.min(), x.max())


def depth(x):
    return (x * WEIGHTS).sum(-1) + OFFSET


def rmse(depths):
    """Over images of one size, root of the mean square."""
    return np.sqrt(np.mean([(d - TRUTH_M) ** 2 for d in depths]))


def attacked(toys, data, settings, target="truth", **masks):
    """Table and tally of toys on a data set; masks are DEFENCE's `mask` and `clean_mask`."""
    suspects, _ = load_suspects(
        PipelineSettings(model=str(toys["linear"]), device="cpu", threads=1),
        str(toys.get(masks.get("mask"), "none")),
        str(toys[masks["clean_mask"]]) if "clean_mask" in masks else None,
        None,
    )
    rows = suspects.rows(settings.adaptive)
    tally = Tally(names(rows, settings), settings.frames.score)
    attack_data(data, suspects, settings, target, tally)
    return {row["name"]: row for row in table_of(tally, rows, settings)}, tally, suspects


def test_table_of_a_linear_network_is_the_closed_form(toys):
    data, settings = Data(3), AttackSettings(eps=(0.1, 0.3), iterations=3)
    table, _, _ = attacked(toys, data, settings, mask="curtain", clean_mask="bright")
    images = [sample.frame.image for sample in data]
    curtain = np.where(np.arange(W) < W // 2, np.float32(0.5), 0)[:, None]
    for epsilon, cells in [(0, "clean"), (0.1, "0.1"), (0.3, "0.3")]:
        got = {
            n: row["clean"] if epsilon == 0 else row["attacked"][cells] for n, row in table.items()
        }
        x = [(worst(i, epsilon), normalised(i)) for i in images]
        expected = {
            "N": rmse([depth(w) for w, _ in x]),
            "N(x*⊗G(x*))": rmse([depth(w * (w[..., 1:2] > 0)) for w, _ in x]),
            "N(x*⊗G(x))": rmse([depth(w * (c[..., 1:2] > 0)) for w, c in x]),
            DEFENCE: rmse([depth(w * curtain) for w, _ in x]),
            "N(x*⊗G_adv(x))": rmse([depth(w * curtain) for w, _ in x]),
            # Who knows the curtain attacks what it shows, and gains what x* does.
            KNOWN: rmse([depth(w * curtain) for w, _ in x]),
        }
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert got[name]["rmse_m"] == pytest.approx(value, rel=1e-5), (name, epsilon)
    assert table["N"]["attacked"]["0.3"]["rmse_m"] > 1.01 * table["N"]["clean"]["rmse_m"]


def test_who_knows_the_mask_leaves_alone_what_it_hides(toys):
    suspects, _ = load_suspects(
        PipelineSettings(model=str(toys["linear"]), device="cpu"), str(toys["curtain"]), None, None
    )
    known = know(suspects.n, Data(1)[0], 0, "truth")
    images = attack_frame(suspects, known, "truth", AttackSettings(eps=(0.2,))).images
    clean, seen, hidden = images["N"][0], slice(0, W // 2), slice(W // 2, None)
    assert torch.equal(images["defence"][1][..., hidden], clean[..., hidden])
    assert torch.equal(images["defence"][1][..., seen], images["N"][1][..., seen])
    assert not torch.equal(images["N"][1][..., hidden], clean[..., hidden])


def test_unit_space_gives_epsilon_in_grey_levels(toys):
    suspects, _ = load_suspects(
        PipelineSettings(model=str(toys["linear"]), device="cpu"), "none", None, None
    )
    known = know(suspects.n, Data(1)[0], 0, "truth")
    settings = AttackSettings(eps=(8 / 255,), space="unit", adaptive=False)
    clean, noisy = attack_frame(suspects, known, "truth", settings).images["N"]
    levels = 255 * (noisy - clean).permute(1, 2, 0).numpy() * np.float32(IMAGENET_STD)
    image = Data(1)[0].frame.image.astype(float)
    expected = np.clip(image - 8 * np.sign(WEIGHTS), image.min(), image.max()) - image
    np.testing.assert_allclose(levels, expected, atol=1e-3)


def test_without_truth_the_attack_leads_away_from_the_networks_own_depth(toys):
    """Though at that depth itself every error is 0, and so is its gradient."""
    settings = AttackSettings(eps=(0.1,), iterations=2)
    table, _, _ = attacked(toys, Data(2, truth=False), settings, "prediction")
    assert table["N"]["clean"]["rmse_m"] == 0
    moved = [
        np.abs(depth(normalised(s.frame.image)) - depth(worst(s.frame.image, -0.1)))
        for s in Data(2)
    ]
    expected = np.sqrt(np.mean(np.square(moved)))
    assert table["N"]["attacked"]["0.1"]["rmse_m"] == pytest.approx(expected, rel=1e-4)


def test_patch_spoils_depth_where_it_is_and_nowhere_else(toys):
    """The toy network sees one pixel at a time."""
    data, settings = Data(2), AttackSettings(eps=(0.3,), iterations=2, patch=0.5)
    table, _, _ = attacked(toys, data, settings)
    inside = np.zeros((H, W), bool)
    inside[H // 4 : H - H // 4, W // 2 - H // 4 : W // 2 + H // 4] = True
    depths = [
        np.where(inside, depth(worst(s.frame.image, 0.3)), depth(normalised(s.frame.image)))
        for s in data
    ]
    assert table["N"]["attacked"]["0.3"]["rmse_m"] == pytest.approx(rmse(depths), rel=1e-4)


def test_monitor_knows_the_disagreement_of_every_frame(toys):
    data, settings = Data(4), AttackSettings(eps=(0.3,), adaptive=False)
    _, tally, suspects = attacked(toys, data, settings, mask="curtain")
    monitor = monitor_of(tally, suspects.rows(False), settings, suspects.alarm)
    curtain = np.where(np.arange(W) < W // 2, np.float32(0.5), 0)[:, None]

    def apart(x):
        return np.median(np.abs(np.log(depth(x * curtain) / depth(x))))

    images = [s.frame.image for s in data]
    clean, noisy = [apart(worst(i, 0)) for i in images], [apart(worst(i, 0.3)) for i in images]
    assert monitor["clean"] == pytest.approx(clean, rel=1e-4)
    assert monitor["attacks"][0]["scores"] == pytest.approx(noisy, rel=1e-4)
    assert monitor["attacks"][0]["by_alarm"]["detected"] == np.mean(np.array(noisy) > 0.02)


def test_frames_without_truth_are_counted_and_left_out(toys):
    data = Data(3)
    data[1] = Sample(data[1].frame, None, "dark")
    _, tally, _ = attacked(toys, data, AttackSettings(eps=(0.1,), iterations=1))
    assert dict(tally.dropped) == {"no truth": 1} and len(tally.images) == 2


@pytest.fixture
def bag(write_bag, tmp_path):
    return write_bag(tmp_path / "walls.mcap", [np.full((H, W), TRUTH_M, np.float32)] * 4)


@pytest.fixture
def no_charts(monkeypatch):
    """Drawing takes seconds."""
    monkeypatch.setattr("mde_ros.evaluation.attack_report._charts", lambda results, colours: [])


FLAGS = {"eps": (0.1,), "iterations": 2}


def attack(toys, bag, out, **more):
    """run_attack on a bag; what attack.json holds."""
    run_attack(
        [str(bag)], str(toys["linear"]), str(toys["curtain"]), out=str(out), settings=FLAGS,
        pipeline={"device": "cpu", "threads": 1}, **more,
    )  # fmt: skip
    return json.loads((out / "attack.json").read_text())


def test_clean_row_is_what_evaluate_says_of_the_same_frames(toys, bag, tmp_path, no_charts):
    results = attack(toys, bag, tmp_path / "out")
    flags = {"runtime": "torch", "device": "cpu", "threads": 1}
    run_evaluate(
        str(bag), [str(toys["linear"])], json_path=str(tmp_path / "r.json"), pipeline=flags
    )
    metrics = json.loads((tmp_path / "r.json").read_text())["models"][0]["metrics"]
    for key in ("rmse_m", "abs_rel", "log10", "delta1", "delta2", "delta3"):
        assert results["rows"][0]["clean"][key] == pytest.approx(metrics[key], rel=1e-6)


def test_ended_early_and_resumed_is_as_never_interrupted(
    toys, bag, tmp_path, no_charts, monkeypatch
):
    whole = attack(toys, bag, tmp_path / "whole")
    asked = []

    @contextmanager
    def second_frame():
        yield lambda: asked.append(0) or len(asked) > 3  # once per data set, then per frame

    with monkeypatch.context() as patch:
        patch.setattr("mde_ros.evaluation.attack.until_ctrl_c", second_frame)
        part = attack(toys, bag, tmp_path / "part")
    assert part["interrupted"] and part["frames_out"] == 2
    assert (tmp_path / "part/partial").is_dir()
    again = attack(toys, bag, tmp_path / "part", resume=True)
    assert not (tmp_path / "part/partial").exists()
    for key in ("rows", "monitor", "per_frame", "data", "frames_out", "interrupted"):
        assert again[key] == whole[key], key


def test_bag_that_cannot_be_read_is_told_and_the_other_counts(toys, bag, tmp_path, no_charts):
    alone = attack(toys, bag, tmp_path / "alone")
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no bag")
    command = ["attack", "--data", str(broken), str(bag), "--model", str(toys["linear"]),
               "--mask", str(toys["curtain"]), "--eps", "0.1", "--iterations", "2",
               "--out", str(tmp_path / "both"), "--device", "cpu"]  # fmt: skip
    assert main(command) == 1
    both = json.loads((tmp_path / "both/attack.json").read_text())
    assert both["rows"] == alone["rows"]
    assert "broken.mcap" in both["problems"][0]


def test_page_tells_the_table_the_warning_and_shows_the_frames(toys, bag, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    results = attack(toys, bag, tmp_path / "out")
    page = (tmp_path / "out/attack.html").read_text("utf-8")
    text = html.unescape(re.sub(r"data:image/[\w+]+;base64,[A-Za-z0-9+/=]+", "", page))
    for row in results["rows"]:
        assert f"{row['clean']['rmse_m']:.3f}" in text and row["name"] in text
        assert f"{row['attacked']['0.1']['delta1']:.3f}" in text
    assert results["warning"] in text
    # 3 frames (least, middle, most): image, noise, two depths, mask; two changes by two attacks
    assert page.count("<img ") == 3 * (3 * 5 + 2 * 2) + 2  # and 2 charts
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link", text)
    assert (tmp_path / "out/attack.png").stat().st_size > 10_000


def test_mask_of_other_weights_and_networks_without_gradients_are_refused(toys, tmp_path):
    other = Linear()
    other.mix.bias.data += 1
    path = tmp_path / "other.safetensors"
    save(path, Checkpoint("linear", other, {"name": "other", "size": [W, H]}))
    with pytest.raises(ModelError, match=r"curtain\.safetensors belongs to linear"):
        load_suspects(PipelineSettings(model=str(path)), str(toys["curtain"]), None, None)
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(b"")
    with pytest.raises(ConfigError, match="only torch has gradients"):
        OpenPipeline(PipelineSettings(model=str(onnx)))


def test_network_trained_under_attack_must_take_the_same_input(toys, tmp_path):
    path = tmp_path / "wide.safetensors"
    save(path, Checkpoint("linear", Linear(), {"name": "wide", "size": [2 * W, H]}))
    with pytest.raises(ConfigError, match="same input as linear"):
        load_suspects(PipelineSettings(model=str(toys["linear"])), "none", None, str(path))


def test_network_trained_under_attack_gets_the_noise_for_n_and_its_own(toys, tmp_path):
    """Its weights are N's with the opposite sign, so that the noise made for N does it good."""
    contrary = Linear()
    contrary.mix.weight.data *= -1
    path = tmp_path / "contrary.safetensors"
    save(path, Checkpoint("linear", contrary, {"name": "contrary", "size": [W, H]}))
    settings, data = AttackSettings(eps=(0.2,), iterations=2), Data(2)
    n, adversarial = (
        OpenPipeline(PipelineSettings(model=str(p), device="cpu")) for p in (toys["linear"], path)
    )
    suspects = Suspects(n, adversarial=adversarial)
    rows = suspects.rows(True)
    tally = Tally(names(rows, settings), settings.frames.score)
    attack_data(data, suspects, settings, "truth", tally)
    table = {row["name"]: row for row in table_of(tally, rows, settings)}
    clean = table["N_adv"]["clean"]["rmse_m"]
    assert table["N_adv"]["attacked"]["0.2"]["rmse_m"] < clean
    known = rmse([2 * OFFSET - depth(worst(s.frame.image, -0.2)) for s in data])
    assert table["N_adv(x†)"]["attacked"]["0.2"]["rmse_m"] == pytest.approx(known, rel=1e-5)


def test_command_attacks_n_alone_where_there_is_no_mask(toys, bag, tmp_path, no_charts, capsys):
    command = ["attack", "--data", str(bag), "--model", str(toys["linear"]), "--eps", "0.1",
               "--iterations", "1", "--out", str(tmp_path / "o"), "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    results = json.loads((tmp_path / "o/attack.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["N"] and results["monitor"] is None
    assert "N alone is attacked" in capsys.readouterr().err
    assert main([*command, "--eps", "0"]) == 2
    assert "eps: expected different numbers above 0" in capsys.readouterr().err


def test_metrics_of_a_frame_are_those_of_depth_metrics(toys):
    data, settings = Data(1), AttackSettings(eps=(0.2,), iterations=1)
    table, _, _ = attacked(toys, data, settings)
    expected = depth_metrics(depth(worst(data[0].frame.image, 0.2)), data[0].truth_m)
    for key, value in table["N"]["attacked"]["0.2"].items():
        assert value == pytest.approx(expected[key], rel=1e-5), key
