"""Distillation without data: statistics by hand, mixtures pixel by pixel, who learns from what."""

from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.checkpoint import Checkpoint, load, save
from mde_ros.cli import main
from mde_ros.config import ConfigError
from mde_ros.datasets import open_dataset
from mde_ros.networks import NETWORKS, Network
from mde_ros.networks.synthesis import Generator, Transformation
from mde_ros.training import distill_free, mixing
from mde_ros.training.batches import Source
from mde_ros.training.distill_free import METHODS, DistillFreeSettings, free_loss, open_teacher
from mde_ros.training.loop import LoopSettings, make_fabric
from mde_ros.training.mixing import Noise, Pictures, load_pictures, mix, random_objects
from mde_ros.training.statistics import batch_norms, statistics_loss

# ------------------------------------------------------------------------------- statistics


def normed(seed=0):
    """Two batch norms behind each other, with statistics of their own."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5))
    for norm in batch_norms(network):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def by_hand(network, x):
    """The inputs of both norms, and the formula of METHODS 6 in numpy."""
    inputs = {0: x, 3: network[:3](x)}
    total = 0.0
    for i, values in inputs.items():
        v = values.numpy().transpose(1, 0, 2, 3).reshape(values.shape[1], -1).astype(np.float64)
        total += np.linalg.norm(v.mean(1) - network[i].running_mean.numpy())
        total += np.linalg.norm(v.var(1) - network[i].running_var.numpy())
    return total


def test_statistics_loss_is_its_formula_over_all_batch_norms():
    network, x = normed(), torch.randn(4, 3, 8, 9) * 2 + 1
    assert statistics_loss(network, x).item() == pytest.approx(by_hand(network, x), rel=1e-5)
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_statistics_loss_is_zero_for_what_is_stored_and_grows_with_a_shift():
    network, x = normed(), torch.randn(4, 3, 8, 9)
    for i in (0, 3):  # in this order: what the second norm sees depends on the first
        values = network[:i](x)
        network[i].running_mean = values.mean((0, 2, 3))
        network[i].running_var = values.var((0, 2, 3), unbiased=False)
    losses = [statistics_loss(network, x + shift).item() for shift in (0, 0.1, 0.2, 0.4)]
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses == sorted(losses) and losses[1] > 0.1 * 3**0.5  # that of the first norm alone


def test_statistics_of_a_batch_shared_by_processes_are_those_of_the_whole_batch():
    """all_gather as two processes see it: both halves, ours with its gradient."""
    network, x = normed(), torch.randn(6, 3, 8, 9)
    halves = [x[::2].clone().requires_grad_(), x[1::2].clone().requires_grad_()]
    kept = []
    for half in halves:
        statistics_loss(network, half, lambda own, sync_grads: kept.append(own) or own)
    shared = statistics_loss(network, halves[0], lambda own, sync_grads: torch.stack(kept))
    assert shared.item() == pytest.approx(statistics_loss(network, x).item(), rel=1e-5)


# ------------------------------------------------------------------------------- mixtures


def test_mixture_has_the_pixels_of_the_mask_from_the_other_and_the_rest_bit_for_bit():
    rng = np.random.default_rng(0)
    image, other = rng.integers(0, 256, (2, 20, 30, 3), np.uint8)
    before, mask = image.copy(), rng.random((20, 30)) < 0.3
    mixed = mix(image, other, mask)
    assert np.array_equal(mixed[mask], other[mask])
    assert np.array_equal(mixed[~mask], before[~mask]) and np.array_equal(image, before)


def test_objects_are_whole_of_a_fit_size_and_any_of_them_comes():
    instance = np.zeros((40, 50), np.uint16)
    instance[:, :30] = 7  # more than half: a wall
    instance[30:, 35:45], instance[5:15, 35:40], instance[0, 31:33] = 300, 4, 9
    seen = set()
    for seed in range(50):
        mask = random_objects(instance, np.random.default_rng(seed))
        chosen = frozenset(np.unique(instance[mask]).tolist())
        assert np.array_equal(mask, np.isin(instance, list(chosen)))
        seen.add(chosen)
    assert seen == {frozenset({300}), frozenset({4}), frozenset({4, 300})}
    assert not random_objects(np.zeros((4, 4), np.uint16), np.random.default_rng(0)).any()


@pytest.fixture
def clips(plane_folder):
    """A folder of two clips of planted rooms with two objects in each frame."""
    parent = None
    for name in ("clips/a", "clips/b"):
        folder = plane_folder(name, 3)
        parent = folder.parent
        (folder / "instance").mkdir()
        for i in range(3):
            instance = np.zeros((48, 64), np.uint16)
            instance[8 : 20 + i, 10:30], instance[30:40, 40 : 50 + i] = 2, 1000 + i
            cv2.imwrite(str(folder / f"instance/{i:03}.png"), instance)
    return parent


def test_objects_of_a_folder_of_clips_come_in_the_order_of_its_frames(clips):
    data = open_dataset(clips)
    ids = [np.unique(data.instance(i)).tolist() for i in range(len(data))]
    assert ids == [[0, 2, 1000], [0, 2, 1001], [0, 2, 1002]] * 2
    assert data.instance(4).dtype == np.uint16
    (clips / "b/instance/001.png").unlink()
    assert data.instance(4) is None


def pictures(clips, mixed=True, rank=0, world=1):
    loaded = load_pictures((Source(str(clips)),), mixed, progress=False)
    return Pictures(loaded, [1.0], (32, 24), 0.7, mixed, 6, 3, rank, world)


def test_batches_hold_pairs_that_differ_in_the_objects_only(clips, monkeypatch):
    monkeypatch.setattr(mixing, "camera_look", lambda image, rng: image)
    batch = pictures(clips)[5]
    assert batch["image"].shape == batch["mixed"].shape == (6, 24, 32, 3)
    changed = (batch["image"] != batch["mixed"]).any(-1).float().mean((1, 2))
    assert changed.min() > 0 and changed.max() < 0.5  # objects cover a sixth


def test_batches_repeat_and_are_shared_by_processes(clips):
    whole, again = pictures(clips)[4], pictures(clips)[4]
    halves = [pictures(clips, rank=r, world=2)[4] for r in range(2)]
    noise = Noise((2, 3), 6, 3)[4]["noise"]
    for key, value in whole.items():
        assert torch.equal(value, again[key])
        assert torch.equal(value, torch.stack([h[key] for h in halves], 1).flatten(0, 1))
        assert not torch.equal(value, pictures(clips)[5][key])
    assert torch.equal(noise[1::2], Noise((2, 3), 6, 3, 1, 2)[4]["noise"])
    assert "mixed" not in pictures(clips, mixed=False)[0]


# ------------------------------------------------------------------------------- who learns


def test_transformation_begins_as_the_identity_and_can_leave_it():
    g, x = Transformation(), torch.randn(2, 3, 9, 11)
    assert torch.equal(g(x), x)
    (g(x) - 1).square().mean().backward()
    assert g.conv3.weight.grad.abs().max() > 0


def test_generator_makes_images_of_normalised_statistics_at_32_times_the_noise():
    made = Generator()(torch.randn(4, 64, 2, 3)).detach()
    assert made.shape == (4, 3, 64, 96)
    assert made.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-4)
    assert made.std((0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-2)


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Answers(nn.Module):
    """Depth: a number times the mean colour of the normalised image, at half resolution."""

    def __init__(self, factor):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * self.norm(x)[..., ::2, ::2].mean(1, keepdim=True)


CPU = LoopSettings(device="cpu", precision="32-true")


def black_and_grey():
    """Images of one value, mixtures of another; normalised, each channel is a number."""
    image, mixed = (torch.full((2, 8, 8, 3), v, dtype=torch.uint8) for v in (0, 128))
    return {"image": image, "mixed": mixed, "noise": torch.randn(2, 3, 8, 8)}


def mean_colour(value):
    return ((value / 255 - MEAN) / STD).mean().item()


@pytest.mark.parametrize("method", METHODS)
def test_student_loss_is_the_distance_from_the_teacher_on_the_images_of_the_method(method):
    teacher, student = Answers(3.0).eval().requires_grad_(False), Answers(1.0).eval()
    batch, companion = black_and_grey(), Transformation()
    value = free_loss(method, teacher, companion, make_fabric(CPU))(student, batch)
    # |3 - 1| times the mean absolute colour; a norm of nothing divides by √(1 + 1e-5).
    plain, pasted = (2 * abs(mean_colour(v)) for v in (0, 128))
    noise = 2 * batch["noise"][..., ::2, ::2].mean(1).abs().mean().item()
    expected = {"mixed": plain + pasted, "simulated": plain, "generator": noise, "noise": noise}
    assert value.item() == pytest.approx(expected[method], rel=1e-4)


def test_gradients_reach_the_student_from_the_teacher_and_the_companion_from_its_own_loss(
    planted,
):
    student, teacher = planted("fast_mobilenet_v2"), planted("light_mobilenet_v2")
    teacher.requires_grad_(False)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    companion = Transformation()
    alone = deepcopy(companion)
    batch = {
        k: torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8) for k in ("image", "mixed")
    }
    loss = free_loss("mixed", teacher, companion, make_fabric(CPU))(student, batch)
    x = (batch["mixed"].permute(0, 3, 1, 2) / 255 - MEAN) / STD
    statistics_loss(teacher, alone(x)).backward()
    assert companion.conv3.weight.grad.abs().max() > 0
    assert torch.allclose(companion.conv3.weight.grad, alone.conv3.weight.grad, rtol=1e-3)
    assert all(p.grad is None for p in student.parameters())
    found = companion.conv3.weight.grad.clone()
    loss.backward()
    assert torch.equal(found, companion.conv3.weight.grad)  # the student's loss is none of its
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_generator_looks_for_where_the_student_errs():
    """Its gradient lessens minus the distance: it points the other way than the student's."""
    teacher, student = Answers(3.0).eval().requires_grad_(False), Answers(1.0).eval()
    made = nn.Parameter(torch.ones(2, 3, 8, 8))

    class Makes(nn.Module):
        def forward(self, noise):
            return made

    free_loss("generator", teacher, Makes(), make_fabric(CPU))(student, black_and_grey())
    assert (made.grad[..., ::2, ::2] < 0).all()  # Adam goes up: the distance is 2 · colour


# ------------------------------------------------------------------------------- training


def run(teacher, sources, out, steps=2, **options):
    loop = LoopSettings(
        steps=steps, batch=2, warmup=2, lr=2e-3, encoder_lr=2e-3, ema=0.0, device="cpu",
        precision="32-true", threads=1, workers=0,
    )  # fmt: skip
    settings = DistillFreeSettings(
        network="fast_mobilenet_v2", teacher=str(teacher), sources=sources, size=(64, 48),
        loop=loop, **options,
    )  # fmt: skip
    return distill_free.train(settings, out)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_goes_on_to_the_same_weights(method, students, clips, tmp_path):
    teacher = students["light_mobilenet_v2"][0]
    bytes_before = teacher.read_bytes()
    sources = (Source(str(clips)),)
    whole = load(run(teacher, sources, tmp_path / "whole", method=method)).network.state_dict()
    run(teacher, sources, tmp_path / "parts", 1, method=method)
    model = load(run(teacher, sources, tmp_path / "parts", 2, method=method))
    different = [k for k, v in model.network.state_dict().items() if not torch.equal(v, whole[k])]
    assert not different
    assert teacher.read_bytes() == bytes_before
    # The planted teacher's canonical focal length, at this training's size.
    assert model.spec["focal_px"] == 250.0 and model.spec["pixels"] == 64 * 48


def test_student_comes_nearer_to_its_teacher(students, clips, tmp_path):
    teacher = load(students["light_mobilenet_v2"][0]).network

    def error(path):
        student, errors = load(path).network, []
        for sample in open_dataset(clips):
            x = (torch.from_numpy(sample.frame.image).permute(2, 0, 1)[None] / 255 - MEAN) / STD
            with torch.inference_mode():
                errors.append((student(x) - teacher(x)).abs().mean())
        return torch.stack(errors).mean().item()

    teacher_file, sources = students["light_mobilenet_v2"][0], (Source(str(clips)),)
    start = error(run(teacher_file, sources, tmp_path / "start", 1))
    assert error(run(teacher_file, sources, tmp_path / "end", 20)) < 0.6 * start


# ------------------------------------------------------------------------------- mistakes


def test_teacher_without_batch_norms_is_refused_with_what_can_be_done(students, tmp_path):
    onnx = str(students["light_mobilenet_v2"][1])
    with pytest.raises(ConfigError, match=r"exported from, or .* mde train distill") as caught:
        open_teacher(onnx, "mixed")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"expected a \.safetensors checkpoint, got hf:some/model"
    ):
        open_teacher("hf:some/model", "mixed")

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 3, 2, 1)

        def forward(self, x):
            return self.conv(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "bare", Network(Bare, "nobody"))
        save(tmp_path / "bare.safetensors", Checkpoint("bare", Bare()))
        with pytest.raises(ConfigError, match=r"got none in bare; take method=simulated"):
            open_teacher(str(tmp_path / "bare.safetensors"), "mixed")
        assert open_teacher(str(tmp_path / "bare.safetensors"), "simulated")


def test_networks_that_are_more_than_depth_of_an_image_are_refused(ruler, students, tmp_path):
    with pytest.raises(ConfigError, match="needs LiDAR points"):
        open_teacher(str(ruler[0]), "noise")
    teacher = str(students["light_mobilenet_v2"][0])
    settings = DistillFreeSettings(
        network="lifelong_mobilenet_v2", teacher=teacher, method="noise", loop=CPU
    )
    with pytest.raises(ConfigError, match="network: lifelong_mobilenet_v2 gives more than depth"):
        distill_free.train(settings, tmp_path)


def test_images_that_cannot_be_mixed_are_refused(plane_folder, clips):
    bare = plane_folder("bare", 2)
    with pytest.raises(ConfigError, match=r"instance/NAME.png.* in .*bare, got none for bare/000"):
        load_pictures((Source(str(bare)),), True, progress=False)
    assert len(load_pictures((Source(str(bare)),), False, progress=False)[0]) == 2
    with pytest.raises(ConfigError, match="skip_last: 6 leaves none of the 6 frames"):
        load_pictures((Source(str(clips), skip_last=6),), True, progress=False)
    with pytest.raises(ConfigError, match="expected simulated images for method=mixed, got none"):
        DistillFreeSettings(teacher="default")
    with pytest.raises(ConfigError, match="teacher: expected a checkpoint or a shipped model"):
        DistillFreeSettings(method="noise")
    with pytest.raises(ConfigError, match="weight: expected one above 0"):
        Pictures([[], []], [0.0, 0.0], (64, 48), 1.0, True, 1, 0)


def test_command_names_the_recipe(capsys):
    assert main(["train", "distill_free", "--list"]) == 0
    assert "companion_lr" in capsys.readouterr().out
