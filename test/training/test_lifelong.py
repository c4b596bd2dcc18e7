"""Lifelong training: its loss by the formula, what each method leaves alone, what is kept."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.config import ConfigError, PipelineSettings
from mde_ros.datasets import open_dataset
from mde_ros.frame import Camera
from mde_ros.losses import uncertainty_loss
from mde_ros.pipeline import DepthPipeline
from mde_ros.training.batches import Source, Stored, load_sources
from mde_ros.training.ewc import fisher_diagonal, with_penalty
from mde_ros.training.lifelong import METHODS, LifelongSettings, lifelong_loss, train
from mde_ros.training.loop import LoopSettings
from mde_ros.training.memory import (
    Known,
    choose,
    descriptions,
    known_model,
    mean_description,
    recall,
    remember,
    replay_folder,
    write_replay,
)

NAME, PIXELS = "lifelong_mobilenet_v2", 64 * 48
SHORT = LoopSettings(
    steps=2, batch=4, lr=1e-3, encoder_lr=1e-3, warmup=0, workers=0, threads=1, precision="32-true"
)
SOMETHING = {"domain": "new", "sources": (Source("anywhere"),)}


def write_planes(folder, number=6, focal=60.0):
    """Slopes of 1 to 8 m as an RGB-D folder of 64x48; grey value = 30 · depth."""
    camera = Camera(64, 48, np.array([[focal, 0, 31.5], [0, focal, 23.5], [0, 0, 1.0]]))
    rng, frames = np.random.default_rng(4), []
    for _ in range(number):
        near, far = np.exp(np.sort(rng.uniform(0, np.log(8), 2)))
        depth = np.tile(np.linspace(far, near, 48)[:, None], (1, 64))
        image = np.repeat((30 * depth)[..., None], 3, 2).astype(np.uint8)
        mm = (1000 * depth).astype(np.uint16)
        frames.append(Stored(image, mm, 0 * mm, camera))
    write_replay(folder, frames)
    return folder


def frames_of(folder):
    return load_sources((Source(str(folder)),), None, progress=False)[0]


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    return write_planes(tmp_path_factory.mktemp("data") / "planes")


@pytest.fixture(scope="module")
def two_domains(planted, planes, tmp_path_factory):
    """A student after it learnt `planes`, as `train` leaves it: that, and `general` unseen."""
    folder = tmp_path_factory.mktemp("models")
    student = folder / "student.safetensors"
    spec = {"focal_px": 60.0, "pixels": PIXELS}
    save(student, Checkpoint("fast_mobilenet_v2", planted("fast_mobilenet_v2"), spec))
    sources = (Source(str(planes)),)
    return train(
        LifelongSettings(to=str(student), domain="planes", sources=sources, loop=SHORT),
        folder / "two",
    )


class Says(nn.Module):
    """Depth and s of three domains as learnt numbers for each, whatever the image."""

    def __init__(self, depth, s):
        super().__init__()
        self.depth, self.s = nn.Parameter(torch.tensor(depth)), nn.Parameter(torch.tensor(s))

    def forward(self, x):
        size = (len(x), 3, x.shape[2] // 2, x.shape[3] // 2)
        depth, s = (p.view(1, 3, 1, 1).expand(size) for p in (self.depth, self.s))
        return depth, s, torch.zeros(len(x), 3)


def batch(metres, source):
    """Flat frames of these depths out of these sources."""
    truth = torch.tensor(metres).view(-1, 1, 1, 1).expand(-1, 1, 8, 12)
    image = torch.zeros(len(metres), 8, 12, 3, dtype=torch.uint8)
    return {"image": image, "truth": truth, "source": torch.tensor(source)}


def test_loss_is_its_formula_over_a_batch_of_three_domains():
    """ℓ_ud,2 + 10 (ℓ_cons,0 + ℓ_replay,0) + 100 (ℓ_cons,1 + ℓ_replay,1), term by term."""
    settings = LifelongSettings(**SOMETHING, keep=(10.0, 100.0))
    network = Says([2.0, 3.0, 4.0], [-1.0, -2.0, -3.0])
    old = Says([2.5, 2.0, 9.0], [-2.0, -2.5, 9.0])
    loss = lifelong_loss(settings, [2, 0, 2, 1], old)
    got = loss(network, batch([2.2, 5.0, 4.4, 3.1], [1, 0, 2, 3]))

    def ud(depth, s, *metres):
        truth, m = torch.tensor(metres).view(-1, 1, 1, 1), sorted(metres)[0]
        return uncertainty_loss(
            torch.full_like(truth, depth), torch.tensor(s - 2 * np.log(m)), truth, torch.tensor(m)
        )

    expected = ud(4.0, -3.0, 4.4, 5.0)
    for weight, (d, old_d, s, old_s, truth) in {
        10.0: (2.0, 2.5, -1.0, -2.0, 2.2), 100.0: (3.0, 2.0, -2.0, -2.5, 3.1)
    }.items():  # fmt: skip
        consistency = abs(d - old_d) / old_d + abs(s - old_s) / max(abs(old_s), 1)
        expected = expected + weight * (consistency + ud(d, s, truth))
    assert got.item() == pytest.approx(float(expected), rel=1e-5)


def test_uncertainty_that_is_learnt_is_that_of_metres():
    """Gradient descent on s alone ends at ln(r²/2), r the error in metres, whatever the median."""
    network = Says([5.0, 5.0, 5.0], [0.0, 0.0, 0.0])
    loss = lifelong_loss(LifelongSettings(**SOMETHING), [0], network)
    optimizer = torch.optim.Adam([network.s], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(network, batch([6.5, 6.5], [0, 0])).backward()
        optimizer.step()
    assert network.s[0].item() == pytest.approx(np.log(1.5**2 / 2), abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_method_of_the_paper_looks_at_the_model_before(method):
    settings = LifelongSettings(**SOMETHING, method=method)
    asked = []

    def before(x):
        asked.append(len(x))
        return Says([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])(x)

    network = Says([2.0, 3.0, 4.0], [-1.0, -2.0, -3.0])
    lifelong_loss(settings, [2, 0, 1], before)(network, batch([2.0, 3.0, 4.0, 5.0], [0, 1, 2, 0]))
    assert asked == ([2] if method == "lifelong" else [])


def test_model_that_has_not_moved_has_no_consistency_to_pay_for(planted):
    network = planted(NAME)
    network.grow(0, network.mean(0))
    frames = batch([2.0, 3.0], [0, 0]) | {"image": torch.zeros(2, 64, 96, 3, dtype=torch.uint8)}
    losses = [
        lifelong_loss(LifelongSettings(**SOMETHING, method=method), [1], network)(network, frames)
        for method in ("lifelong", "finetune")
    ]
    assert torch.equal(*losses)
    moved = planted(NAME)
    moved.grow(0, network.mean(0))
    moved.heads[0].depth.bias.data += 0.1
    assert lifelong_loss(LifelongSettings(**SOMETHING), [1], moved)(network, frames) > losses[1]


def touched(before, after):
    """Names of the tensors that differ, of those that both have."""
    shared = {k for k in before if k in after and before[k].shape == after[k].shape}
    return {k for k in shared if not torch.equal(before[k], after[k]) and "num_batches" not in k}


@pytest.mark.parametrize("method", ["frozen", "finetune", "ewc", "lifelong"])
def test_each_method_leaves_the_old_parts_it_must_as_they_were(
    two_domains, planes, tmp_path, method
):
    """Frozen: trunk and old heads bit for bit; fine-tuning and EWC: the old heads."""
    seen, sources = Known(str(planes), domain="general"), (Source(str(planes)),)
    settings = LifelongSettings(
        to=str(two_domains), domain="third", sources=sources, known=(seen,), method=method,
        loop=SHORT,
    )  # fmt: skip
    before = load(two_domains).network.state_dict()
    after = load(train(settings, tmp_path / method)).network.state_dict()
    changed = {
        name for name in touched(before, after) if "mean_" not in name and name != "whitening"
    }
    groups = {name.split(".")[0] if name[:5] != "heads" else name[:7] for name in changed}
    trunk = {"encoder", "gates", "fuse_up", "fuse"}
    assert groups == {
        "frozen": set(), "finetune": trunk, "ewc": trunk,
        "lifelong": trunk | {"heads.0", "heads.1"},
    }[method]  # fmt: skip
    assert {name for name in after if name.startswith("heads.2")}


@pytest.mark.parametrize("norms", ["kept", "trained"])
def test_batch_norms_of_all_parts_stay_as_they_are_unless_they_are_to_be_trained(
    two_domains, planes, tmp_path, norms
):
    sources = (Source(str(planes)),)
    settings = LifelongSettings(
        to=str(two_domains), domain="third", sources=sources, norms=norms, loop=SHORT
    )
    before = load(two_domains).network.state_dict()
    after = load(train(settings, tmp_path / "out")).network.state_dict()
    statistics = {k for k in before if k.endswith("running_mean")}
    assert touched(before, after) & statistics == (set() if norms == "kept" else statistics)


def test_student_learns_a_domain_and_the_next_finds_its_frames(two_domains, planes, tmp_path):
    model = load(two_domains)
    assert model.spec["domains"] == ["general", "planes"] and len(model.network.heads) == 2
    assert model.spec["focal_px"] == 60.0 and model.settings["method"] == "lifelong"
    assert not replay_folder(two_domains, "general").exists()
    kept = open_dataset(replay_folder(two_domains, "planes"))
    assert len(kept) == 6 and all(sample.has_truth() for sample in kept)

    settings = LifelongSettings(
        to=str(two_domains), domain="third", sources=(Source(str(planes)),), replay=4, loop=SHORT
    )
    out = train(settings, tmp_path / "three")
    assert load(out).spec["domains"] == ["general", "planes", "third"]
    assert len(open_dataset(replay_folder(out, "planes"))) == 6  # copied, not read and drawn again
    assert len(open_dataset(replay_folder(out, "third"))) == 4
    frame = open_dataset(replay_folder(out, "third"))[0].frame
    told = DepthPipeline(PipelineSettings(model=str(out), domain="third", device="cpu"))(frame)
    assert told.domain == "third" and told.uncertainty.shape == told.depth.shape == (48, 64)


def test_network_from_nothing_has_the_new_domain_alone(planes, tmp_path):
    sources = (Source(str(planes)),)
    settings = LifelongSettings(to="", focal_px=60.0, domain="planes", sources=sources, loop=SHORT)
    model = load(train(settings, tmp_path / "out"))
    assert model.spec["domains"] == ["planes"] and len(model.network.heads) == 1
    assert model.network.elsewhere.tolist() == [0.0]


def test_means_are_those_of_the_features_after_the_training(two_domains):
    model = load(two_domains)
    frames = recall(["planes"], (), two_domains, False)["planes"]
    mean = mean_description(model.network, frames, PIXELS)
    # JPEG and fp32 stand between: to a few percent of what the features vary.
    assert (mean - model.network.mean(1)).abs().mean() < 0.05 * mean.std()


def test_domain_without_frames_is_believed_for_one_in_twenty_of_the_known_frames(
    two_domains, tmp_path
):
    """`remember` with planted frames: 95 % of their distances lie below that of elsewhere."""
    model = tmp_path / "model.safetensors"
    shutil.copy(two_domains, model)
    frames = frames_of(write_planes(tmp_path / "many", 60))
    remember(model, {"general": [], "planes": frames}, {})
    network = load(model).network
    own = torch.cat([network.distances(x) for x in descriptions(network, frames, PIXELS)])
    assert (own.argmin(1) == 0).float().mean().item() == pytest.approx(0.05, abs=0.02)


def test_frames_come_back_as_they_were_kept(tmp_path):
    a, b = (frames_of(write_planes(tmp_path / str(f), 3, f)) for f in (60.0, 80.0))
    folder = tmp_path / "replay/x"
    write_replay(folder, [*a, *b, *a])
    again = frames_of(folder)
    assert len(again) == 9 and not list(tmp_path.glob("replay/.*"))
    for one, other in zip([*a, *a, *b], again):
        assert np.array_equal(one.truth_mm, other.truth_mm)
        assert np.abs(one.image.astype(int) - other.image).mean() < 2
        assert one.camera.same_as(other.camera)
    write_replay(folder, b)
    assert len(frames_of(folder)) == 3


def test_frames_are_drawn_without_return_the_same_for_a_seed():
    frames = list(range(100))
    drawn = choose(frames, 30, 3)
    assert drawn == choose(frames, 30, 3) != choose(frames, 30, 4)
    assert len(set(drawn)) == 30 and drawn == sorted(drawn) and choose(frames, 200, 3) == frames


def test_fisher_diagonal_of_a_linear_model_is_its_closed_form():
    """ℓ = (w·x)²/2: gradient (w·x) x, squared and averaged over the samples."""
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    network = nn.Linear(4, 1, bias=False)
    samples = [{"x": row} for row in x]
    fisher = fisher_diagonal(network, lambda n, b: n(b["x"]).sum() ** 2 / 2, samples, 7)
    expected = ((x @ network.weight.detach().T) * x).square().mean(0, keepdim=True)
    assert torch.allclose(fisher["weight"], expected, rtol=1e-5)


def test_ewc_penalty_is_half_its_weight_times_fisher_times_the_squared_move():
    network = nn.Linear(2, 1)
    fisher = {"weight": torch.tensor([[3.0, 0.5]]), "bias": torch.tensor([2.0])}
    loss = with_penalty(lambda n, b: torch.tensor(7.0), network, fisher, 10.0)
    assert loss(network, {}).item() == 7.0
    with torch.no_grad():
        network.weight += torch.tensor([[0.1, -2.0]])
        network.bias -= 1.0
    total = loss(network, {})
    assert total.item() == pytest.approx(7 + 5 * (3 * 0.01 + 0.5 * 4 + 2 * 1), rel=1e-5)
    total.backward()
    assert network.weight.grad.tolist()[0] == pytest.approx([10 * 3 * 0.1, 10 * 0.5 * -2.0])


MISTAKES = {
    "unnamed": ({"domain": ""}, "domain: expected a name of letters, digits, - and _, got ''"),
    "no data": ({"sources": ()}, "sources: expected a recording of the new domain"),
    "known twice": ({"domain": "planes"}, "domain: the model knows 'planes' already"),
    "unknown frames of": (
        {"known": (Known("x", domain="moon"),)},
        r"known: expected domains of the model \(general, planes\), got 'moon'",
    ),
    "nothing to measure EWC by": ({"method": "ewc"}, "known: expected frames of general for ewc"),
    "no lifelong network": (
        {"to": "", "network": "mff_resnet50"},
        "network: expected one of lifelong_resnet34, lifelong_mobilenet_v2, got 'mff_resnet50'",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_cannot_be_learnt_is_one_sentence(two_domains, planes, tmp_path, case):
    changes, message = MISTAKES[case]
    usual = {"to": str(two_domains), "domain": "new", "sources": (Source(str(planes)),)}
    with pytest.raises(ConfigError, match=message):
        train(LifelongSettings(**usual | {"loop": SHORT} | changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_student_of_another_kind_is_refused(planted, tmp_path):
    path = tmp_path / "light.safetensors"
    save(path, Checkpoint("light_mobilenet_v2", planted("light_mobilenet_v2"), {"focal_px": 9.0}))
    with pytest.raises(ConfigError, match=r"to: expected a lifelong model or a student \(light_r"):
        known_model(str(path), "general")
