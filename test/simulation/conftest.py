"""A skip where there is no OpenGL, and small scenes whose pictures are known in closed form."""

import numpy as np
import pytest

from mde_ros.simulation.render import SimulationUnavailable, gl_context
from mde_ros.simulation.shapes import Light, Material, Scene, SceneObject

SIZE = (160, 120)
FOCAL_PX = 110.0


@pytest.fixture
def opengl():
    """Skips where MuJoCo or OpenGL is missing; wrong pictures fail."""
    try:
        return gl_context(*SIZE)
    except SimulationUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def plain_scene():
    """A floor at z = 0, a red ball of radius 0.5 m at (3, 0, 0.7), a box from x = 5 m on."""
    grey, red = Material((0.6, 0.6, 0.6)), Material((0.9, 0.1, 0.1))
    objects = [
        SceneObject("floor").box((0, 0, -0.05), (20, 20, 0.05), grey),
        SceneObject("ball").sphere((3, 0, 0.7), 0.5, red),
        SceneObject("box").box((5.5, 1.5, 0.6), (0.5, 0.5, 0.6), grey),
    ]
    light = Light((0.5, 0.5, 0.5), position=(1, 0, 4))
    return Scene("test", objects, [light], ambient=0.4)


@pytest.fixture
def pixel_rays():
    """Directions (H, W, 3) with z = 1 in the optical frame; pixel centres at integers."""
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    x, y = (u - (SIZE[0] - 1) / 2) / FOCAL_PX, (v - (SIZE[1] - 1) / 2) / FOCAL_PX
    return np.stack([x, y, np.ones_like(x)], axis=-1)
