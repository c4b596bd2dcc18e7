"""Scenes, shapes, textures and floor plans without rendering."""

import numpy as np
import pytest

from mde_ros.simulation.floorplan import FloorPlan
from mde_ros.simulation.furniture import PIECES
from mde_ros.simulation.movers import car, person
from mde_ros.simulation.rooms import random_room
from mde_ros.simulation.shapes import Material, Part, Patrol, part_mesh, yaw_pose
from mde_ros.simulation.streets import random_street
from mde_ros.simulation.textures import PAINTERS, hsv, noise, texture

HUNG = ("picture", "board", "switch", "socket", "sign", "window", "door")
LYING = ("floor", "rug", "ceiling", "lamps", "pipes")


def enclosed_volume(mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@pytest.mark.parametrize(
    "shape, half_size, top, volume, tolerance",
    [
        ("box", (1.0, 0.3, 2.0), (1.0, 1.0), 8 * 0.6, 1e-9),
        ("box", (1.0, 0.5, 0.5), (0.5, 0.5), (2 + 0.5 + 1) / 3, 1e-9),  # a frustum
        ("sphere", (0.5, 0.5, 0.5), (1.0, 1.0), 4 / 3 * np.pi / 8, 0.04),
        ("cylinder", (0.3, 0.3, 1.0), (1.0, 1.0), 2 * np.pi * 0.09, 0.04),
        ("cone", (0.4, 0.4, 0.5), (1.0, 1.0), np.pi / 3 * 0.28, 0.04),
        ("cone", (0.4, 0.4, -0.5), (1.0, 1.0), np.pi / 3 * 0.28, 0.04),
    ],
)
def test_meshes_are_closed_and_face_outwards(shape, half_size, top, volume, tolerance):
    pose = yaw_pose(1.0, 2.0, 3.0, 0.7)
    mesh = part_mesh(Part(shape, half_size, pose, Material(), top))
    assert enclosed_volume(mesh) == pytest.approx(volume, rel=max(tolerance, 1e-9))
    across = np.cross(
        mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
        mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
    )
    assert (np.einsum("ij,ij->i", across, mesh.normals[mesh.faces].mean(1)) > 0).all()


def test_a_texture_depends_on_its_name_and_variant_alone():
    first = {name: texture(name, 1).copy() for name in PAINTERS}
    texture.cache_clear()
    for name in reversed(list(PAINTERS)):
        assert np.array_equal(texture(name, 1), first[name])
    assert not np.array_equal(texture("wood", 0), texture("wood", 1))


def test_an_unknown_texture_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"wodo.*wood"):
        texture("wodo", 0)


def test_noise_tiles_without_a_seam():
    image = noise(np.random.default_rng(0), (4, 4), 3)
    inner = np.abs(np.diff(image, axis=0)).max()
    assert np.abs(image[0] - image[-1]).max() < 2 * inner
    assert np.abs(image[:, 0] - image[:, -1]).max() < 2 * np.abs(np.diff(image, axis=1)).max()


def test_hsv_gives_the_primary_colours():
    for hue, colour in ((0, (1, 0, 0)), (1 / 3, (0, 1, 0)), (2 / 3, (0, 0, 1)), (0.5, (0, 1, 1))):
        np.testing.assert_allclose(hsv(hue, 1, 1), colour, atol=1e-9)


def test_a_patrol_returns_to_its_start_and_faces_where_it_goes():
    patrol = Patrol(np.array([1.0, 0, 0]), np.array([1.0, 2, 0]), speed=0.5, phase=0.0)
    np.testing.assert_allclose(patrol.pose(2.0)[:3, 3], [1, 1, 0])
    np.testing.assert_allclose(patrol.pose(2.0)[:3, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(patrol.pose(6.0)[:3, 3], [1, 1, 0])
    np.testing.assert_allclose(patrol.pose(6.0)[:3, 0], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(patrol.pose(8.0)[:3, 3], [1, 0, 0], atol=1e-12)


def test_a_floor_plan_knows_what_is_free_and_how_far_it_is():
    plan = FloorPlan((-1.0, -1.0), (5.0, 5.0))
    plan.clear((0.0, 0.0), (4.0, 4.0))
    plan.take(yaw_pose(2.0, 2.0), (0.5, 0.5))
    assert not plan.fits(yaw_pose(2.9, 2.0), (0.5, 0.5))
    assert plan.fits(yaw_pose(3.3, 2.0), (0.5, 0.5))
    assert not plan.fits(yaw_pose(3.8, 2.0), (0.5, 0.5))  # through the wall
    clearance = plan.clearance()
    for point, expected in (((1.0, 2.0), 0.5), ((3.3, 3.0), 0.7), ((9.0, 9.0), 0.0)):
        assert plan.lookup(clearance, point) == pytest.approx(expected, abs=0.11)


@pytest.mark.parametrize("name", sorted(PIECES))
def test_furniture_keeps_to_its_floor(name):
    for seed in range(6):
        piece = PIECES[name](np.random.default_rng(seed))
        vertices = np.concatenate(
            [part_mesh(part).vertices for each in piece.objects for part in each.parts]
        )
        assert vertices[:, 2].min() > -0.03, f"{name} sinks into the floor"
        over = np.abs(vertices[vertices[:, 2] < 0.3][:, :2]).max(0) - piece.half_size
        assert over.max() < 0.45, f"{name} reaches {over.max():.2f} m over its place"


def test_people_and_cars_have_human_and_car_size():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for piece, low, high in ((person(rng), 1.35, 2.0), (car(rng), 1.3, 3.2)):
            parts = piece.objects[0].parts
            height = max(part_mesh(part).vertices[:, 2].max() for part in parts)
            assert low < height < high


def static_boxes(scene):
    """(T_part_world, half size, name) of every solid that stands in the way of a mover."""
    return [
        (np.linalg.inv(part.pose), np.abs(part.half_size), each.name)
        for each in scene.objects
        if each.motion is None and each.name not in LYING
        for part in each.parts
    ]


@pytest.mark.parametrize("make, seeds", [(random_room, 14), (random_street, 3)])
def test_movers_never_walk_through_what_stands(make, seeds):
    walked = 0
    for seed in range(seeds):
        scene, _ = make(np.random.default_rng(seed))
        solids = static_boxes(scene)
        for mover in (each for each in scene.objects if each.motion is not None):
            places = [mover.pose(time_s)[:3, 3] for time_s in np.linspace(0, 6, 9)]
            waist = np.array(places) + [0, 0, 0.1 if mover.name == "ball" else 0.5]
            if mover.name == "car":  # both flanks
                waist = np.concatenate([waist + [0, 0.85, 0], waist - [0, 0.85, 0]])
            walked += 1
            for T, half, name in solids:
                inside = np.abs(waist @ T[:3, :3].T + T[:3, 3]) < half
                assert not inside.all(1).any(), f"seed {seed}: {mover.name} in {name}"
    assert walked > 5


def test_things_on_walls_do_not_overlap():
    for seed in range(10):
        scene, _ = random_room(np.random.default_rng(seed))
        boxes = []
        for each in scene.objects:
            if each.name in HUNG and each.motion is None:
                vertices = np.concatenate([part_mesh(part).vertices for part in each.parts])
                boxes.append((each.name, vertices.min(0), vertices.max(0)))
        for index, (name, low, high) in enumerate(boxes):
            for other, low2, high2 in boxes[:index]:
                shared = np.minimum(high, high2) - np.maximum(low, low2)
                assert shared.min() < 1e-6, f"seed {seed}: {name} and {other} overlap"


def test_rooms_are_of_all_kinds_and_the_same_for_a_seed():
    kinds = {random_room(np.random.default_rng(seed))[0].kind for seed in range(25)}
    assert len(kinds) >= 6
    one, two = (random_room(np.random.default_rng(5))[0] for _ in range(2))
    assert [each.name for each in one.objects] == [each.name for each in two.objects]
    for a, b in zip(one.objects, two.objects):
        assert all(np.array_equal(p.pose, q.pose) for p, q in zip(a.parts, b.parts))
