"""The light completion network: what it does without points, with one, and by brute force."""

import pytest
import torch

from mde_ros.networks import make_network
from mde_ros.networks.light_completion import CELL_OF_HALF, LightCompletion, masked_median
from mde_ros.networks.mff import FastNet


@pytest.fixture(scope="module")
def pair():
    """A student and the completion network that begins as it; statistics away from their start."""
    torch.manual_seed(3)
    student = FastNet().eval()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    completion = LightCompletion().eval()
    missing = completion.load_state_dict(student.state_dict(), strict=False)
    assert not missing.unexpected_keys
    return student, completion


def image(height=64, width=96):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def line(depth, row=40, step=3):
    """Points on one row of an image, values from a map of half the size."""
    full = torch.nn.functional.interpolate(depth, scale_factor=2.0)
    sparse = torch.zeros_like(full)
    sparse[:, :, row, ::step] = full[:, :, row, ::step]
    return sparse


def test_parameters_are_those_of_the_student_and_of_the_branch_counted_by_hand(pair):
    student, completion = (sum(p.numel() for p in n.parameters()) for n in pair)
    separable = 32 * 25 + 64 + 32 * 32 + 64
    branch = 2 * (64 * 32 + 32) + 2 * 65 + 3 + (70 * 32 + 32) + separable + (32 * 4 * 9 + 4)
    assert completion == student + branch < 2_200_000


@pytest.mark.parametrize("trained", [False, True])
def test_without_points_the_answer_is_the_students(pair, trained):
    student, completion = pair
    if trained:  # whatever the branch has learnt
        torch.manual_seed(0)
        fresh = LightCompletion().eval()
        for parameter in fresh.parameters():
            parameter.data.normal_(0, 0.2)
        fresh.load_state_dict(student.state_dict(), strict=False)
        completion = fresh
    x = image()
    with torch.inference_mode():
        expected = student(x)
        for sparse in (None, torch.zeros(2, 1, 64, 96)):
            depth, s = completion(x, sparse)
            assert torch.equal(depth, expected) and s.shape == depth.shape
            assert s.isfinite().all()


def test_a_wrong_scale_is_put_right_everywhere_by_one_line(pair):
    """All points agree on the factor; no place but for trust in the student has another one."""
    student, completion = pair
    x, trust = image(), completion.unlike.bias.data.clone()
    completion.unlike.bias.data[1] = -1e9
    with torch.inference_mode():
        mono = student(x)
        depth, _ = completion(x, line(mono * 1.7))
    completion.unlike.bias.data = trust
    assert depth.allclose(mono * 1.7, rtol=1e-4)


def test_other_sizes_are_filled_up_at_the_right_and_bottom(pair):
    _, completion = pair
    x, filled = image(50, 70), image(64, 80)
    for v in range(64):
        for u in range(80):
            filled[:, :, v, u] = x[:, :, min(v, 49), min(u, 69)]
    sparse = torch.zeros(2, 1, 64, 80)
    sparse[:, :, 30, :60] = 2.0
    with torch.inference_mode():
        found, expected = completion(x, sparse[..., :50, :70]), completion(filled, sparse)
    for f, e in zip(found, expected):
        assert f.shape == (2, 1, 25, 35) and torch.equal(f, e[..., :25, :35])


def test_points_go_to_the_places_they_are_most_like_by_brute_force(pair):
    """Each place's correction, by loops over places and cells from the definition of attention."""
    _, completion = pair
    torch.manual_seed(5)
    features = torch.randn(1, 64, 16, 16)
    log_mono, error = torch.rand(1, 1, 32, 32), torch.randn(1, 1, 32, 32)
    seen = (torch.rand(1, 1, 32, 32) < 0.02).float()
    error = error * seen
    with torch.inference_mode():
        median, shift, about = completion._carry(features, log_mono, error, seen)
        high, wide = CELL_OF_HALF
        cells = []
        for top in range(0, 32, high):
            for left in range(0, 32, wide):
                at = [
                    (v, u)
                    for v in range(top, top + high)
                    for u in range(left, left + wide)
                    if seen[0, 0, v, u]
                ]
                if not at:
                    continue
                # A quarter-size pixel counts by the points in it.
                f = torch.stack([features[0, :, v // 2, u // 2] for v, u in at]).mean(0)
                place = torch.tensor(
                    [[(u - 15.5) / 50, (v - 15.5) / 50, float(log_mono[0, 0, v, u])] for v, u in at]
                ).mean(0)
                e = torch.stack([error[0, 0, v, u] for v, u in at]).mean()
                key = completion.key.weight[:, :, 0, 0] @ f + completion.key.bias
                cells.append((key, place, e))
        middle = torch.stack([e for _, _, e in cells]).sort().values[(len(cells) - 1) // 2]
        assert median.item() == pytest.approx(middle.item(), abs=1e-6)
        falls = completion.falls.exp()
        for v, u in ((0, 0), (3, 5), (7, 7)):
            f = features[0, :, 2 * v : 2 * v + 2, 2 * u : 2 * u + 2].mean((1, 2))
            level = log_mono[0, 0, 4 * v : 4 * v + 4, 4 * u : 4 * u + 4].mean()
            place = torch.tensor([(4 * u + 1.5 - 15.5) / 50, (4 * v + 1.5 - 15.5) / 50, level])
            query = completion.query.weight[:, :, 0, 0] @ f + completion.query.bias
            logits = [q @ query / 32**0.5 - (falls * (p - place) ** 2).sum() for q, p, _ in cells]
            logits += list(completion.unlike.weight[:, :, 0, 0] @ f + completion.unlike.bias)
            weights = torch.softmax(torch.stack(logits), 0)
            errors = [e for _, _, e in cells] + [middle, torch.tensor(0.0)]
            carried = sum(w * e for w, e in zip(weights, errors))
            assert shift[0, 0, v, u].item() == pytest.approx(carried.item(), abs=1e-4)
            assert about[0, 1, v, u].item() == pytest.approx(weights[:-2].sum().item(), abs=1e-4)


def test_median_is_that_of_the_masked_values_of_each_image():
    torch.manual_seed(1)
    values, mask = torch.randn(6, 1, 4, 5), torch.rand(6, 1, 4, 5) < 0.4
    mask[2] = False
    expected = [v[m].median().item() if m.any() else 0.0 for v, m in zip(values, mask)]
    assert masked_median(values, mask).flatten().tolist() == pytest.approx(expected)


def test_one_image_of_a_batch_does_not_change_another(pair):
    _, completion = pair
    x, sparse = image(), torch.zeros(2, 1, 64, 96)
    sparse[0, 0, 40, ::2] = 3.0
    with torch.inference_mode():
        both, alone = completion(x, sparse), completion(x[1:], sparse[1:])
    for b, a in zip(both, alone):
        assert b[1:].allclose(a, rtol=1e-4, atol=1e-6)


def test_every_part_learns_from_points():
    torch.manual_seed(0)
    network = make_network("completion_mobilenet_v2").train()
    network.doubt[-1].weight.data.normal_(0, 0.01)
    network.unlike.weight.data.normal_(0, 0.01)
    sparse = torch.zeros(2, 1, 64, 64)
    sparse[:, :, 30] = torch.rand(2, 1, 64) * 3 + 1
    depth, s = network(torch.randn(2, 3, 64, 64), sparse)
    (depth.log().square().mean() + s.mean()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [n for n in still if not n.startswith("encoder.")]
