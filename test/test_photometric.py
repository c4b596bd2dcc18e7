"""Warping and comparing frames against planted scenes and closed forms (METHODS 8, 9, 11)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mde_ros.geometry import pose
from mde_ros.photometric import (
    least_error,
    motion_matrix,
    photometric_error,
    project,
    smoothness,
    ssim_distance,
    transform,
    unproject,
    warp,
)

HEIGHT, WIDTH = 60, 80
K = torch.tensor([[[70.0, 0, 38.2], [0, 66.0, 30.7], [0, 0, 1]]])


@pytest.fixture
def image():
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def texture(x, y):
    """Colours of a plane at (x, y), smooth so that bilinear values are close to it."""
    waves = [
        torch.sin(4 * x) * torch.cos(3 * y),
        torch.cos(2 * x + 3 * y),
        torch.sin(3 * y - 2 * x),
    ]
    return torch.stack(waves, 1) / 2 + 0.5


def seen(R, t, normal, distance):
    """A textured plane n·X = d as a camera sees it whose points are X' = R X + t: image, depth."""
    ones = torch.ones(1, 1, HEIGHT, WIDTH, dtype=torch.float64)
    directions = R.T @ unproject(ones, K.double()).flatten(2)[0]
    centre = -R.T @ t
    along = (distance - normal @ centre) / (normal @ directions)  # depth: directions have z' = 1
    X = centre[:, None] + along * directions
    image = texture(X[0].view(1, HEIGHT, WIDTH), X[1].view(1, HEIGHT, WIDTH))
    return image, along.view(1, 1, HEIGHT, WIDTH)


def test_a_frame_is_made_of_its_neighbour_by_the_true_depth_and_motion_alone():
    T = torch.from_numpy(pose([0.12, -0.05, 0.2], [0.01, -0.03, 0.02, 1]))
    normal, distance = torch.tensor([0.2, -0.3, 1.0], dtype=torch.float64), 3.0
    here, depth = seen(torch.eye(3).double(), torch.zeros(3).double(), normal, distance)
    there, _ = seen(T[:3, :3], T[:3, 3], normal, distance)
    inner = np.s_[..., 8:-8, 8:-8]

    def error(depth, T):
        made = warp(there.float(), depth.float(), T[None].float(), K)
        return (made - here.float())[inner].abs().max().item()

    assert error(depth, T) < 0.01
    assert error(depth * 1.3, T) > 0.1 and error(depth, torch.linalg.inv(T)) > 0.1


def test_no_motion_reproduces_the_image_whatever_the_depth(image):
    depth = 1 + 5 * torch.rand(1, 1, HEIGHT, WIDTH)
    assert torch.allclose(warp(image, depth, torch.eye(4)[None], K), image, atol=1e-4)


def test_projection_undoes_unprojection_and_motion_is_divided_by_depth():
    depth = torch.full((1, 1, HEIGHT, WIDTH), 4.0)
    points = unproject(depth, K)
    pixels, z = project(points, K)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    assert np.allclose(pixels[0], [u, v], atol=1e-4) and torch.equal(z, depth)
    moved, _ = project(points, K, motion=torch.tensor([8.0, -4.0]).view(1, 2, 1, 1))
    assert torch.allclose(moved - pixels, torch.tensor([2.0, -1.0]).view(1, 2, 1, 1), atol=1e-4)


def test_identical_images_have_no_photometric_error(image):
    assert photometric_error(image, image).abs().max() == 0


def test_ssim_is_that_of_the_closed_form_on_flat_images():
    """No variance: (2ab + C1)/(a² + b² + C1); without the term of the means nothing is left."""
    a, b = torch.full((1, 3, 5, 6), 0.2), torch.full((1, 3, 5, 6), 0.6)
    expected = (1 - (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)) / 2
    assert torch.allclose(ssim_distance(a, b), torch.tensor(expected), atol=1e-4)
    assert ssim_distance(a, b, c1=None).abs().max() < 1e-4
    pe = photometric_error(a, b)
    assert torch.allclose(pe, torch.tensor(0.85 * expected + 0.15 * 0.4), atol=1e-4)


def test_ssim_equals_windows_counted_by_hand(image):
    other = image.roll(2, 3)
    patches = [F.unfold(x[:, :1], 3).double() for x in (image, other)]
    ma, mb = (p.mean(1) for p in patches)
    va, vb = (p.var(1, correction=0) for p in patches)
    cov = (patches[0] * patches[1]).mean(1) - ma * mb
    ssim = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    expected = ((1 - ssim) / 2).clamp(0, 1).view(1, 1, HEIGHT - 2, WIDTH - 2)
    ours = ssim_distance(image, other)[:, :1, 1:-1, 1:-1]
    assert torch.allclose(ours.double(), expected, atol=1e-4)


def test_automask_is_empty_where_frames_are_identical(image):
    made = warp(image, torch.full((1, 1, HEIGHT, WIDTH), 2.0), torch.eye(4)[None], K)
    warped = torch.cat([photometric_error(made, image), photometric_error(made, image)], 1)
    still = photometric_error(image, image).expand(1, 2, HEIGHT, WIDTH)
    assert not least_error(warped, still)[1].any()


def test_each_pixel_takes_its_best_source_and_learns_only_where_that_beats_standing_still():
    warped = torch.tensor([[0.5, 0.1], [0.2, 0.9], [0.4, 0.4]]).view(3, 2, 1, 1).requires_grad_()
    still = torch.tensor([[0.6, 0.6], [0.3, 0.1], [0.4, 0.5]]).view(3, 2, 1, 1)
    error, mask = least_error(warped, still)
    assert torch.equal(error.flatten(), torch.tensor([0.1, 0.1, 0.4]))
    assert mask.flatten().tolist() == [True, False, False]
    error.sum().backward()
    assert torch.equal(warped.grad.view(3, 2), torch.tensor([[0.0, 1], [0, 0], [0, 0]]))


def test_smoothness_does_not_see_scale_and_forgives_steps_at_edges():
    step = torch.ones(1, 1, 8, 10)
    step[..., 5:] = 2
    flat, edge = torch.zeros(1, 3, 8, 10), torch.zeros(1, 3, 8, 10)
    edge[..., 5:] = 0.8
    # One of nine differences in each row is 1 by a mean of 1.5.
    assert smoothness(step, flat).item() == pytest.approx(1 / 1.5 / 9, rel=1e-5)
    assert smoothness(step, edge).item() == pytest.approx(np.exp(-0.8) / 1.5 / 9, rel=1e-5)
    assert torch.allclose(smoothness(7 * step, flat), smoothness(step, flat))


def test_motion_is_a_turn_about_an_axis_and_a_shift():
    angle, axis = 0.7, np.array([2.0, -1, 2]) / 3
    T = motion_matrix(torch.tensor([[*(angle * axis), 1.0, 2, 3]]))[0]
    half = [*(np.sin(angle / 2) * axis), np.cos(angle / 2)]
    assert np.allclose(T, pose([1, 2, 3], half), atol=1e-6)
    assert np.allclose(transform(T[None], torch.zeros(1, 3, 1, 1)).flatten(), [1, 2, 3])


def test_depth_learns_from_a_wrong_guess_through_the_warp():
    """Gradient descent on one number, the depth of a plane seen from two places, finds it."""
    normal = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    T = torch.eye(4)[None]
    T[:, 0, 3] = 0.2
    here, _ = seen(torch.eye(3).double(), torch.zeros(3).double(), normal, 3.0)
    there, _ = seen(torch.eye(3).double(), T[0, :3, 3].double(), normal, 3.0)
    log_depth = torch.tensor(0.8, requires_grad=True)
    optimizer = torch.optim.Adam([log_depth], 0.02)
    for _ in range(60):
        depth = torch.exp(log_depth).expand(1, 1, HEIGHT, WIDTH)
        loss = photometric_error(warp(there.float(), depth, T, K), here.float())
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert torch.exp(log_depth).item() == pytest.approx(3.0, rel=0.03)
