"""Losses against the closed forms of METHODS 0.4, and blind to what was not measured."""

import math

import pytest
import torch
import torch.nn.functional as F

from mde_ros import losses

LN_HALF = math.log(0.5)
GARBAGE = [0.0, -3.0, math.nan, math.inf, -math.inf]


@pytest.fixture
def depth():
    return torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(1)) * 4 + 1


def test_perfect_prediction_has_the_floor_of_each_term(depth):
    l_depth, l_grad, l_normal = losses.three_term_terms(depth, depth)
    assert float(l_depth) == pytest.approx(LN_HALF, abs=1e-6)
    assert float(l_grad) == pytest.approx(2 * LN_HALF, abs=1e-6)
    assert float(l_normal) == pytest.approx(0, abs=1e-6)
    assert float(losses.three_term(depth, depth)) == pytest.approx(-2.0794, abs=1e-4)
    assert float(losses.log_depth(depth, depth)) == 0


def test_sobel_is_the_cross_correlation_of_the_published_kernels():
    """On a ramp of slope a along x and b along y: ∇x = -8a, ∇y = -8b inside."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    gx, gy = losses.sobel((0.25 * x + 0.5 * y)[None, None])
    assert torch.all(gx[..., 1:-1, 1:-1] == -8 * 0.25)
    assert torch.all(gy[..., 1:-1, 1:-1] == -8 * 0.5)


def test_constant_offset_moves_depth_alone_in_the_interior(depth):
    gp, gt = losses.sobel(depth + 2), losses.sobel(depth)
    for p, t in zip(gp, gt):
        assert p[..., 1:-1, 1:-1] == pytest.approx(t[..., 1:-1, 1:-1], abs=1e-4)
    l_depth, _, _ = losses.three_term_terms(depth + 2, depth)
    assert float(l_depth) == pytest.approx(math.log(2.5), abs=1e-6)


def test_offset_shows_in_the_gradient_terms_on_the_border_ring_only(depth):
    """Zero padding: with a ring of unknown truth around, the ring's pixels count no more."""
    framed = F.pad(depth, (1, 1, 1, 1))
    _, l_grad, l_normal = losses.three_term_terms(F.pad(depth + 2, (1, 1, 1, 1)), framed)
    assert float(l_grad) == pytest.approx(2 * LN_HALF, abs=1e-4)
    assert float(l_normal) == pytest.approx(0, abs=1e-5)
    assert float(losses.three_term_terms(depth + 2, depth)[1]) > 2 * LN_HALF + 0.1


def test_gradient_and_normal_terms_of_a_tilted_plane_are_their_closed_form():
    """Flat truth, prediction of slope a: ∇x = -8a; the angle between normals is atan(8a)."""
    a, flat = 0.1, torch.full((1, 1, 8, 10), 3.0)
    tilted = flat + a * torch.arange(10.0)
    _, l_grad, l_normal = losses.three_term_terms(
        F.pad(tilted, (1, 1, 1, 1)), F.pad(flat, (1, 1, 1, 1))
    )
    assert float(l_grad) == pytest.approx(math.log(8 * a + 0.5) + LN_HALF, abs=1e-4)
    assert float(l_normal) == pytest.approx(1 - math.cos(math.atan(8 * a)), abs=1e-5)


def test_three_terms_equal_a_loop_over_the_pixels(depth):
    """Independent: numbers by Python loops over one small map, holes included."""
    truth, guess = depth[:1, :, :5, :6].clone(), depth[1:, :, :5, :6]
    truth[0, 0, 4, 5] = 0
    d, t = guess[0, 0].tolist(), truth[0, 0].tolist()

    def at(m, r, c):
        return m[r][c] if 0 <= r < 5 and 0 <= c < 6 else 0.0

    def slope(m, r, c):
        k = {-1: 1, 0: 2, 1: 1}
        gx = sum(k[i] * (at(m, r + i, c - 1) - at(m, r + i, c + 1)) for i in k)
        gy = sum(k[i] * (at(m, r - 1, c + i) - at(m, r + 1, c + i)) for i in k)
        return gx, gy

    points = [(r, c) for r in range(5) for c in range(6)]
    known = [p for p in points if p != (4, 5)]
    whole = [(r, c) for r, c in points if max(abs(r - 4), abs(c - 5)) > 1]
    depth_term = sum(math.log(abs(d[r][c] - t[r][c]) + 0.5) for r, c in known) / len(known)
    grad = normal = 0.0
    for r, c in whole:
        (px, py), (tx, ty) = slope(d, r, c), slope(t, r, c)
        grad += math.log(abs(px - tx) + 0.5) + math.log(abs(py - ty) + 0.5)
        length = math.sqrt((px * px + py * py + 1) * (tx * tx + ty * ty + 1))
        normal += abs(1 - (px * tx + py * ty + 1) / length)
    expected = (depth_term, grad / len(whole), normal / len(whole))
    assert [float(v) for v in losses.three_term_terms(guess, truth)] == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_unmeasured_pixels_influence_neither_loss_nor_gradient(depth, name, garbage):
    """Whatever stands in the holes of the truth or in the prediction there, all stays the same."""
    hole = torch.zeros_like(depth, dtype=torch.bool)
    hole[:, :, 3:6, 2:9] = True
    hole[1, :, 10:, 12:] = True
    results = []
    for filler, guess in ((0.0, 1.0), (garbage, 40.0)):
        truth = torch.where(hole, filler, depth)
        prediction = torch.where(hole, guess, depth.flip(3)).requires_grad_()
        loss = losses.LOSSES[name](prediction, truth)
        (gradient,) = torch.autograd.grad(loss, prediction)
        results.append((loss.detach(), torch.where(hole, 0, gradient)))
        assert gradient[hole].abs().max() == 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1].isfinite().all() and results[0][1].abs().max() > 0


@pytest.mark.parametrize("name", losses.LOSSES)
def test_image_without_any_truth_has_loss_and_gradient_zero(depth, name):
    prediction = depth.requires_grad_()
    loss = losses.LOSSES[name](prediction, torch.zeros_like(depth))
    loss.backward()
    assert loss.item() == 0 and prediction.grad.abs().max() == 0


def test_log_depth_of_a_factor_is_its_logarithm_near_and_far(depth):
    assert float(losses.log_depth(depth * 1.3, depth)) == pytest.approx(math.log(1.3), abs=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradient_descent_on_the_loss_alone_finds_the_truth(depth, name):
    """On the prediction itself, no network: the minimum of the loss is the planted map."""
    guess = torch.full_like(depth, 3.0).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.1)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 150)
        optimizer.zero_grad()
        losses.LOSSES[name](guess, depth).backward()
        optimizer.step()
    assert (guess - depth).abs().mean().item() < 0.05


@pytest.mark.parametrize("r", [0.01, 0.3, 2.0])
def test_uncertainty_loss_is_least_where_s_is_the_log_of_half_the_squared_error(r):
    """There its value is 2 + 2 ln(r²/2), and its slope, 2 - r² e^-s in closed form, is zero."""
    target = torch.full((1, 1, 4, 5), 2.0)
    best = math.log(r * r / 2)
    for apart in (-0.5, 0.0, 0.5):
        s = torch.full_like(target, best + apart).requires_grad_()
        loss = losses.uncertainty_loss(target * (1 + r), s, target)
        (slope,) = torch.autograd.grad(loss, s)
        assert slope.sum().item() == pytest.approx(2 - 2 * math.exp(-apart), abs=1e-4)
        assert loss.item() == pytest.approx(2 * math.exp(-apart) + 2 * (best + apart), abs=1e-4)


def test_uncertainty_loss_equals_a_loop_over_the_valid_pixels(depth):
    target, s = depth.flip(3).clone(), torch.linspace(-2, 2, depth.numel()).view_as(depth)
    target[0, 0, :4], target[1, 0, 3, 3] = 0, math.nan
    rows = zip(depth.flatten().tolist(), s.flatten().tolist(), target.flatten().tolist())
    known = [(p, u, t) for p, u, t in rows if t > 0]
    m = sorted(t for _, _, t in known)[(len(known) - 1) // 2]
    expected = sum(math.exp(-u) * (p / m - t / m) ** 2 + 2 * u for p, u, t in known) / len(known)
    assert float(losses.uncertainty_loss(depth, s, target)) == pytest.approx(expected, rel=1e-5)


def test_uncertainty_loss_with_medians_per_image_regards_neither_image_s_scale(depth):
    s, factors = torch.zeros_like(depth), torch.tensor([7.0, 0.2]).view(2, 1, 1, 1)

    def loss(guess, truth):
        m = losses.median_depth(truth, per_image=True)
        return float(losses.uncertainty_loss(guess, s, truth, m))

    expected = loss(depth.flip(2), depth)
    assert loss(depth.flip(2) * factors, depth * factors) == pytest.approx(expected, rel=1e-4)


def test_consistency_loss_is_zero_where_nothing_changed_and_its_formula_elsewhere(depth):
    """Depth 10 % larger and s larger by 0.6: 0.1 · mean/median + 0.6 / |median of s'|."""
    s = torch.full_like(depth, -3.0)
    assert losses.consistency_loss(depth, s, depth, s).item() == 0
    loss = losses.consistency_loss(1.1 * depth, s + 0.6, depth, s)
    expected = 0.1 * depth.mean().item() / depth.flatten().sort().values[(depth.numel() - 1) // 2]
    assert loss.item() == pytest.approx(float(expected) + 0.6 / 3, rel=1e-4)


@pytest.mark.parametrize("median", [0.0, 0.5, -0.5])
def test_consistency_loss_is_not_blown_up_by_an_uncertainty_around_zero(depth, median):
    s = torch.full_like(depth, median)
    assert losses.consistency_loss(depth, s + 1, depth, s).item() == pytest.approx(1.0)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_uncertainty_loss_and_its_gradients_leave_out_what_was_not_measured(depth, garbage):
    truth, hole = depth.clone(), torch.zeros_like(depth, dtype=torch.bool)
    hole[1, :, 3:6] = True
    truth[hole] = garbage
    guess, s = depth.flip(3).requires_grad_(), torch.zeros_like(depth).requires_grad_()
    losses.uncertainty_loss(guess, s, truth).backward()
    for gradient in (guess.grad, s.grad):
        assert gradient.isfinite().all() and (gradient[hole] == 0).all() and gradient.any()
    empty = losses.uncertainty_loss(guess, s, torch.zeros_like(depth))
    assert empty.item() == 0


# ---- single-line completion (METHODS 7b) ---------------------------------------------------------


@pytest.fixture
def relative(depth):
    """prediction, s and teacher, all different."""
    g = torch.Generator().manual_seed(2)
    return depth, torch.randn(depth.shape, generator=g) - 3, depth.flip(3) * 1.3 + 0.2


@pytest.mark.parametrize("c", [0.01, 0.5, 7.0])
def test_scale_of_the_teacher_does_not_matter(relative, c):
    prediction, s, teacher = relative
    expected = losses.relative_loss(prediction, s, teacher).item()
    assert losses.relative_loss(prediction, s, teacher * c).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_scale_of_the_prediction_does_not_matter_if_its_error_scales_along(relative):
    """s is in metres², so three times the depth has ln 9 more of it."""
    prediction, s, teacher = relative
    expected = losses.relative_loss(prediction, s, teacher).item()
    scaled = losses.relative_loss(prediction * 3, s + math.log(9), teacher)
    assert scaled.item() == pytest.approx(expected, rel=1e-5)


def test_relative_loss_is_its_formula_on_the_known_pixels(relative):
    prediction, s, teacher = relative
    teacher = teacher.clone()
    teacher[:, :, ::3] = 0
    terms = []
    for p, t, u in zip(prediction, teacher, s):
        known = t > 0
        own, theirs = p[known].median(), t[known].median()
        sigma = u[known] - 2 * own.log()
        terms.append(torch.exp(-sigma) * (p[known] / own - t[known] / theirs) ** 2 + 2 * sigma)
    expected = torch.cat(terms).mean().item()
    assert losses.relative_loss(prediction, s, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_points_pull_where_they_are_and_nowhere_else(depth):
    points = torch.zeros_like(depth)
    points[:, :, 5, ::2] = depth[:, :, 5, ::2] + 0.5
    prediction = depth.clone().requires_grad_()
    value = losses.point_loss(prediction, points)
    assert value.item() == pytest.approx(0.5, abs=1e-6)
    (grad,) = torch.autograd.grad(value, prediction)
    assert torch.equal(grad != 0, points > 0)
    assert losses.point_loss(depth, torch.zeros_like(depth)) == 0


def tilted(height=40, width=60):
    """Depth of a tilted plane: its inverse is affine in the image."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return (1 / (0.1 + 0.004 * x + 0.002 * y))[None, None]


LINE = [5.0, 8.0, 50.0, 30.0]


def test_true_order_along_a_line_costs_less_than_the_reversed_one():
    plane, lines = tilted(), torch.tensor([[LINE, [0.0] * 4]])
    right = losses.line_ranking_loss(plane, plane, lines)
    wrong = losses.line_ranking_loss(plane.flip(2, 3), plane, lines)
    turned = losses.line_ranking_loss(plane, plane, lines[..., [2, 3, 0, 1]])
    assert right < math.log(2) < wrong
    assert turned.item() == pytest.approx(right.item(), rel=1e-5)  # a segment has no direction


def test_ranking_loss_is_its_formula_at_the_samples():
    """Inverse depth is affine in the image, so the plane's depth at a sample is known exactly."""
    plane, samples = tilted(), 8
    x0, y0, x1, y1 = LINE
    t = torch.linspace(0.08, 0.92, samples)
    x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    d = 1 / (0.1 + 0.004 * x + 0.002 * y)
    expected = torch.log1p(torch.exp(-(d[:-1] - d[1:]))).mean()  # it falls along the segment
    lines = torch.tensor([[LINE]])
    found = losses.line_ranking_loss(plane, plane, lines)
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)


@pytest.mark.parametrize("case", ["flat", "edge", "unknown", "none"])
def test_lines_that_say_nothing_do_not_count(case):
    teacher, lines = tilted(), torch.tensor([[LINE]])
    if case == "flat":
        teacher = torch.full_like(teacher, 2.0)
    elif case == "edge":
        teacher = torch.where(torch.arange(60) > 30, teacher * 3, teacher)
    elif case == "unknown":
        teacher[..., 20:] = 0
    else:
        lines = torch.zeros(1, 3, 4)
    prediction = tilted().requires_grad_()
    value = losses.line_ranking_loss(prediction, teacher, lines)
    value.backward()
    assert value == 0 and not prediction.grad.any()


def wavy(n=2, seed=0):
    """Smooth depth of about 1 to 4 metres, another one for each image."""
    torch.manual_seed(seed)
    return 2.5 + 1.5 * F.interpolate(torch.rand(n, 1, 4, 5) * 2 - 1, (40, 60), mode="bicubic")


@pytest.mark.parametrize("inverse", [False, True])
def test_scale_and_shift_of_each_image_do_not_count_where_they_are_unknown(inverse):
    depth, scale, shift = wavy(), torch.tensor([3.0, 0.2]), torch.tensor([0.5, 2.0])
    scale, shift = (v.view(2, 1, 1, 1) for v in (scale, shift))
    target = 1 / (scale / depth + shift) if inverse else scale * depth + shift
    assert losses.scale_shift_loss(depth, target, inverse).item() == pytest.approx(0, abs=1e-4)
    assert losses.scale_shift_loss(depth, target, not inverse) > 0.02
    assert losses.scale_shift_loss(depth, wavy(seed=1), inverse) > 0.5


def test_scale_shift_loss_of_four_pixels_is_counted_by_hand():
    """Lower medians 2 and 1, mean deviations 1 and 2: (-1, 0, 1, 2) and (0, 0, 1.5, 2.5)."""
    prediction = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 1, 4)
    target = torch.tensor([1.0, 1, 4, 6]).view(1, 1, 1, 4)
    value = losses.scale_shift_loss(prediction, target, False, steps=(2,), weight=0.5)
    error = [-1.0, 0.0, -0.5, -0.5]
    changes = (abs(error[2] - error[0]) + abs(error[3] - error[1])) / 2
    assert value.item() == pytest.approx(sum(map(abs, error)) / 4 + 0.5 * changes, rel=1e-6)


def test_scale_shift_loss_has_a_gradient_from_negative_depth_and_none_from_unknown():
    prediction = (wavy() - 2.5).requires_grad_()  # about half of it is negative
    target = wavy(seed=1)
    target[0], target[1, :, :20] = 0, math.nan
    losses.scale_shift_loss(prediction, target, True).backward()
    grad = prediction.grad
    assert grad.isfinite().all() and not grad[0].any() and not grad[1, :, :20].any()
    assert (grad[1, :, 20:] != 0).float().mean() > 0.9
