"""Random streets: houses, parked and moving cars, people, trees, poles, sky."""

import numpy as np

from mde_ros.simulation import materials as ma
from mde_ros.simulation.floorplan import FloorPlan
from mde_ros.simulation.movers import car, person
from mde_ros.simulation.shapes import Light, Material, Patrol, Scene, SceneObject, yaw_pose
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator
START_M, END_M = -80.0, 140.0  # the street along x; cameras stay in 0..60
MIDDLE_M, HALF_M = (START_M + END_M) / 2, (END_M - START_M) / 2
KERB_M = 0.12


def random_street(rng: Rng, least_road_m: float = 2.8) -> tuple[Scene, FloorPlan]:
    """A straight street along x and the plan of where a camera may go.

    Args:
        least_road_m: of the carriageway's half width.
    """
    road, pavement = rng.uniform(least_road_m, 6.5), rng.uniform(1.5, 4.0)  # half width, width
    objects = ground(rng, road, pavement)
    plan = FloorPlan((0.0, -road - pavement), (60.0, road + pavement))
    plan.clear((0.0, -road - pavement), (60.0, road + pavement))
    lane = min(1.75, 0.35 * road)
    room_for_both = road - 1.1 - lane > 1.05 + 0.95  # a parked and a moving car side by side
    for side in (-1, 1):
        objects += houses(rng, side, road + pavement)
        objects += kerb_side(rng, plan, side, road)
        parked = rng.random() < (0.85 if room_for_both else 0.4)
        if parked:
            objects += parked_cars(rng, plan, side, road)
        if room_for_both or not parked:
            objects += traffic(rng, -side, side * lane)
        objects += walkers(rng, side, road, pavement)
    height = rng.uniform(0.35, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(angle), np.sin(angle), 0]) + [0, 0, height]
    sun /= np.linalg.norm(sun)
    overcast = rng.random() < 0.4
    strength = rng.uniform(0.1, 0.25) if overcast else rng.uniform(0.5, 0.75)
    warm = hsv(0.1, rng.uniform(0, 0.2), strength)
    sky_light = rng.uniform(0.1, 0.2)
    lights = [
        Light(tuple(warm), tuple(-sun), shadow=True),
        Light((sky_light,) * 3, (0.0, 0.0, -1.0)),
        Light((sky_light * 0.7,) * 3, (float(sun[0]), float(sun[1]), -0.3)),
    ]
    sky = hsv(
        0.58, rng.uniform(0, 0.12) if overcast else rng.uniform(0.2, 0.5), rng.uniform(0.75, 1)
    )
    clouds = rng.uniform(0.3, 1.0) if overcast else rng.uniform(0, 0.8)
    scene = Scene(
        "street", objects, lights, rng.uniform(0.25, 0.4), tuple(sky), clouds, far_m=120.0,
        coarse=True, sun_reach_m=25.0,
    )  # fmt: skip
    return scene, plan


def ground(rng: Rng, road: float, pavement: float) -> list[SceneObject]:
    lane = SceneObject("road")
    grey = rng.uniform(0.25, 0.6)
    tar = ma.patterned(rng, "asphalt", (grey, grey, grey * 1.02), 3.0)
    lane.box((MIDDLE_M, 0, -0.5), (HALF_M, road, 0.5), tar)
    marking = Material((0.85, 0.85, 0.82))
    if rng.random() < 0.8:
        for x in np.arange(-30, 90, 6.0):
            lane.box((x, 0, 0.001), (1.4, 0.06, 0.003), marking)
    if rng.random() < 0.3:  # a crossing
        start = rng.uniform(8, 25)
        for y in np.arange(-road + 0.4, road - 0.2, 0.9):
            lane.box((start, y, 0.001), (1.6, 0.22, 0.003), marking)
    paving = SceneObject("pavement")
    stone = ma.patterned(
        rng, str(rng.choice(["tiles", "concrete", "terrazzo"])), ma.neutral(rng, 0.4), 1.6
    )
    edge = Material((0.6, 0.6, 0.58))
    for side in (-1, 1):
        centre = side * (road + pavement / 2 + 0.1)
        paving.box((MIDDLE_M, centre, KERB_M - 0.4), (HALF_M, pavement / 2, 0.4), stone)
        paving.box((MIDDLE_M, side * (road + 0.06), KERB_M - 0.4), (HALF_M, 0.08, 0.402), edge)
    lawn = SceneObject("ground")
    lawn.box((MIDDLE_M, 0, -0.8), (HALF_M + 60, 90, 0.6), ma.full_picture(rng, "grass", tile_m=3.0))
    return [lane, paving, lawn]


def houses(rng: Rng, side: int, offset: float) -> list[SceneObject]:
    """A row of houses with gaps, gardens and hedges on one side."""
    objects = []
    x = START_M - 10
    dense = rng.uniform(0.6, 1.0)
    setback = rng.choice([0.1, rng.uniform(1, 5)])
    while x < END_M + 10:
        half, tall, deep = rng.uniform(3, 9), rng.uniform(2.5, 9), rng.uniform(3, 6)
        back = side * (offset + 0.2 + setback + deep)
        if rng.random() < dense:
            objects.append(house(rng, (x + half, back), (half, deep, tall), side))
        elif rng.random() < 0.5:
            hedge = SceneObject("hedge")
            green = ma.full_picture(rng, "leaves", tile_m=0.7)
            hedge.box(
                (x + half, side * (offset + 0.7), 0.7), (half, 0.3, rng.uniform(0.5, 0.9)), green
            )
            objects.append(hedge)
        x += 2 * half + rng.choice([0.0, rng.uniform(0, 3)])
    if setback > 1 and rng.random() < 0.6:
        fence, wood = SceneObject("fence"), ma.body_material(rng)
        for post in np.arange(-6, 66, 1.6):
            fence.box((post, side * (offset + 0.35), 0.55), (0.04, 0.04, 0.55), wood)
        for z in (0.45, 0.9):
            fence.box((30, side * (offset + 0.35), z), (36, 0.02, 0.05), wood)
        objects.append(fence)
    return objects


def house(rng: Rng, centre, half, side: int) -> SceneObject:
    (x, y), (wide, deep, tall) = centre, half
    thing = SceneObject("building")
    wall = ma.full_picture(rng, "facade", tile_m=float(rng.uniform(5, 9)))
    thing.box((x, y, tall), (wide, deep, tall), wall)
    trim = ma.plain(rng, ma.neutral(rng, 0.3))
    front = y - side * (deep + 0.02)
    thing.box((x, front, 2 * tall), (wide + 0.1, 0.3, 0.12), trim)
    if rng.random() < 0.6:
        thing.box((x, front, 0.4), (wide, 0.06, 0.4), trim)
    if rng.random() < 0.5:  # a pitched roof
        slates = ma.patterned(
            rng, "boards", hsv(rng.uniform(0, 0.1), 0.4, rng.uniform(0.3, 0.7)), 1.5
        )
        rise = rng.uniform(1.0, 2.5)
        thing.box((x, y, 2 * tall + rise), (wide + 0.1, deep + 0.4, rise), slates, top=(1.0, 0.02))
    for door in np.arange(x - wide + 1.2, x + wide - 0.8, rng.uniform(3, 7)):
        thing.box((door, front, 1.2), (0.55, 0.07, 1.05), ma.plain(rng, ma.muted(rng)))
        if rng.random() < 0.3:
            thing.box((door, front - side * 0.4, 2.6), (1.0, 0.5, 0.05), trim)
    if rng.random() < 0.5 and tall > 4:
        for level in np.arange(3.4, 2 * tall - 1, 3.0):
            thing.box((x, front - side * 0.4, level), (wide * 0.3, 0.4, 0.06), trim)
            thing.box(
                (x, front - side * 0.78, level + 0.5), (wide * 0.3, 0.02, 0.45), ma.metallic(rng)
            )
    return thing


def kerb_side(rng: Rng, plan: FloorPlan, side: int, road: float) -> list[SceneObject]:
    """Trees, lamp posts, signs, bins and bollards along the kerb."""
    objects = []
    kinds = rng.choice(["tree", "lamp post", "sign", "bin", "bollard"], 3)
    for x in np.arange(rng.uniform(-24, -18), 85, rng.uniform(4, 12)).tolist():
        turn = 0 if side > 0 else np.pi
        place = yaw_pose(x + rng.uniform(-1, 1), side * (road + 0.5), KERB_M, turn)
        objects.append(street_thing(rng, str(rng.choice(kinds))).moved(place))
        plan.take(place, (0.35, 0.35))
    return objects


def street_thing(rng: Rng, kind: str) -> SceneObject:
    """One thing at the kerb; -y is towards the road."""
    thing, steel = SceneObject(kind), ma.metallic(rng)
    if kind == "tree":
        tall = rng.uniform(1.8, 3.2)
        bark = ma.patterned(rng, "concrete", hsv(0.08, 0.35, 0.45), 0.5)
        thing.rod((0, 0, -0.1), (rng.uniform(-0.1, 0.1), 0, tall), rng.uniform(0.07, 0.2), bark)
        green = ma.full_picture(rng, "leaves", tile_m=float(rng.uniform(0.6, 1.2)))
        spread = rng.uniform(0.4, 0.9)
        for _ in range(int(rng.integers(8, 16))):
            centre = (*rng.normal(0, spread, 2), tall + abs(rng.normal(0.6, 0.8)))
            thing.rod((0, 0, tall - 0.3), centre, 0.03, bark)
            thing.sphere(centre, rng.uniform(0.35, 0.9, 3), green)
    elif kind == "lamp post":
        tall = rng.uniform(3.5, 7)
        thing.cylinder((0, 0, tall / 2), 0.06, tall / 2, steel).cylinder(
            (0, 0, 0.4), 0.1, 0.4, steel
        )
        thing.rod((0, 0, tall), (0, -1.2, tall + 0.2), 0.04, steel)
        thing.box((0, -1.4, tall + 0.2), (0.1, 0.3, 0.05), steel)
    elif kind == "sign":
        thing.cylinder((0, 0, 1.25), 0.03, 1.25, Material((0.6, 0.6, 0.6), gloss=0.4))
        face = ma.plain(rng, ma.vivid(rng))
        if rng.random() < 0.5:
            thing.rod((-0.02, 0, 2.3), (0.02, 0, 2.3), 0.3, face)
        else:
            thing.box((0, 0, 2.2), (0.015, 0.3, rng.uniform(0.15, 0.4)), face)
    elif kind == "bin":
        thing.box((0, 0, 0.5), (0.28, 0.3, 0.45), ma.plain(rng, ma.muted(rng)))
        thing.box((0, 0, 0.97), (0.3, 0.32, 0.04), ma.plain(rng, ma.muted(rng)))
    else:
        thing.cylinder((0, 0, 0.45), 0.06, 0.45, ma.plain(rng, ma.neutral(rng, 0.1)))
    return thing


def parked_cars(rng: Rng, plan: FloorPlan, side: int, road: float) -> list[SceneObject]:
    objects: list[SceneObject] = []
    x, chance = rng.uniform(-26, -16), rng.uniform(0.2, 0.9)
    while x < 85:
        if rng.random() < chance:
            piece = car(rng)
            heading = (0 if side < 0 else np.pi) + rng.normal(0, 0.02)
            place = yaw_pose(x, side * (road - 1.1), 0, heading)
            objects += piece.moved(place)
            plan.take(place, piece.half_size)
        x += rng.uniform(5.2, 8)
    return objects


def traffic(rng: Rng, direction: int, lane: float) -> list[SceneObject]:
    """Cars that follow each other along y = `lane`, all at one speed."""
    objects = []
    start, end = np.array([-60.0, lane, 0.0]), np.array([120.0, lane, 0.0])
    if direction < 0:
        start, end = end, start
    speed, gap = rng.uniform(2, 10), rng.uniform(12, 40)
    for phase in np.arange(rng.uniform(20, 40), 160, gap).tolist():
        vehicle = car(rng).objects[0]
        vehicle.motion = Patrol(start, end, speed, phase)
        objects.append(vehicle)
    return objects


def walkers(rng: Rng, side: int, road: float, pavement: float) -> list[SceneObject]:
    """People on one pavement, each in a lane of their own."""
    objects = []
    for _ in range(int(rng.integers(0, 5))):
        walker = person(rng).objects[0]
        lane = side * (road + rng.uniform(1.0, max(1.1, pavement - 0.3)))
        start = np.array([rng.uniform(0, 35), lane, KERB_M])
        end = start + [rng.uniform(5, 20), 0, 0]
        walker.motion = Patrol(start, end, rng.uniform(0.6, 1.7), rng.uniform(0, 20))
        objects.append(walker)
    return objects
