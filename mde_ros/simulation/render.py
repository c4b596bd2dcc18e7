"""MuJoCo's OpenGL renderer and ray caster for one scene; the only file that knows MuJoCo."""

import atexit
import os
from functools import lru_cache
from types import ModuleType

import numpy as np

from mde_ros.simulation.shapes import Material, Mesh, Scene, merged, part_mesh
from mde_ros.simulation.textures import texture

NEAR_M = 0.05
FLOOR_GROUP = 1
REMEDY = (
    "simulation needs the extra 'sim' (pip install 'mde_ros[sim]') and, on Debian and Ubuntu, "
    "the packages libegl1 libegl-mesa0 libgl1-mesa-dri"
)


class SimulationUnavailable(RuntimeError):
    """MuJoCo or OpenGL is missing; the message says what to install."""


@lru_cache(maxsize=1)
def load_mujoco() -> ModuleType:
    """MuJoCo, told to render without a display and with one thread (clips run in parallel).

    Raises:
        SimulationUnavailable: when MuJoCo or its OpenGL libraries cannot be loaded.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    try:
        import mujoco
    except Exception as error:  # OpenGL's loaders raise whatever they like
        raise SimulationUnavailable(f"{REMEDY} ({type(error).__name__}: {error})") from error
    return mujoco


@lru_cache(maxsize=2)
def gl_context(width: int, height: int):
    """The process's OpenGL context for pictures of that size, made current.

    Raises:
        SimulationUnavailable: when no OpenGL context can be made.
    """
    mujoco = load_mujoco()
    try:
        context = mujoco.GLContext(width, height)
        context.make_current()
    except Exception as error:
        raise SimulationUnavailable(f"{REMEDY} ({type(error).__name__}: {error})") from error
    atexit.register(context.free)  # before MuJoCo takes the display away
    return context


class SceneRenderer:
    """Colour, depth, instances and rays of one scene, at any time and from any pose.

    Args:
        scene: what to render.
        size: (width, height) in pixels.
        focal_px: focal length, pixels; the principal point is the centre of the picture.
    """

    def __init__(self, scene: Scene, size: tuple[int, int], focal_px: float):
        self.mujoco = load_mujoco()
        self.context = gl_context(*size)
        self.context.make_current()
        self.scene, self.size, self.focal_px = scene, size, focal_px
        self.model = self.compile()
        self.data = self.mujoco.MjData(self.model)
        self.view = self.mujoco.MjvScene(self.model, maxgeom=self.model.ngeom + 50)
        self.options = self.mujoco.MjvOption()
        self.camera = self.mujoco.MjvCamera()
        self.camera.type = self.mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = 0
        self.gpu = self.mujoco.MjrContext(
            self.model, self.mujoco.mjtFontScale.mjFONTSCALE_100.value
        )
        self.mujoco.mjr_setBuffer(self.mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.gpu)
        self.gpu.readDepthMap = self.mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        self.object_of_geom = self.model.geom_user[:, 0].astype(int)
        self.panes = set(np.flatnonzero(self.model.geom_user[:, 1]).tolist())
        self.mocap = {
            index: self.model.body(f"object {index}").mocapid[0]
            for index, each in enumerate(scene.objects)
            if each.motion is not None
        }
        self.set(np.eye(4), 0.0)

    # ------------------------------------------------------------------ building the model

    def compile(self):
        """The scene as a MuJoCo model: one mesh per object and material."""
        mujoco, spec = self.mujoco, self.mujoco.MjSpec()
        spec.nuser_geom = 2
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
        visual, reach_m = spec.visual, self.scene.sun_reach_m
        sunny = any(light.position is None and light.shadow for light in self.scene.lights)
        visual.global_.offwidth, visual.global_.offheight = self.size
        visual.map.znear, visual.map.zfar = NEAR_M, 4 * self.scene.far_m
        visual.map.shadowclip, visual.map.shadowscale = reach_m, 0.9
        # A coarse shadow map is fast and makes soft edges.
        visual.quality.shadowsize = 1024 if sunny else 512
        visual.quality.offsamples = 4
        visual.headlight.ambient = [self.scene.ambient] * 3
        visual.headlight.diffuse = visual.headlight.specular = [0, 0, 0]
        for light in self.scene.lights:
            self.add_light(spec, light)
        self.add_sky(spec)
        fov_y = 2 * np.degrees(np.arctan(self.size[1] / 2 / self.focal_px))
        spec.worldbody.add_camera(name="camera", fovy=fov_y)
        materials: dict[Material, str] = {}
        for index, each in enumerate(self.scene.objects):
            body = spec.worldbody.add_body(name=f"object {index}", mocap=each.motion is not None)
            groups: dict[Material, list[Mesh]] = {}
            for part in each.parts:
                groups.setdefault(part.material, []).append(part_mesh(part, self.scene.coarse))
            for number, (material, meshes) in enumerate(groups.items()):
                if material not in materials:
                    materials[material] = self.add_material(spec, material, len(materials))
                name = f"mesh {index} {number}"
                self.add_mesh(spec, name, merged(meshes))
                body.add_geom(
                    type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=materials[material],
                    contype=0, conaffinity=0, userdata=[index, material.lets_sun_in],
                    group=FLOOR_GROUP if each.name in ("floor", "rug") else 0,
                )  # fmt: skip
        return spec.compile()

    def add_mesh(self, spec, name: str, mesh: Mesh) -> None:
        spec.add_mesh(
            name=name,
            uservert=mesh.vertices.ravel(),
            userface=mesh.faces.astype(np.int32).ravel(),
            usernormal=mesh.normals.ravel(),
            usertexcoord=mesh.uv.ravel(),
            inertia=self.mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )

    def add_material(self, spec, material: Material, number: int) -> str:
        added = spec.add_material(
            name=f"material {number}", rgba=[*material.colour, 1.0],
            specular=material.gloss,
            shininess=0.4, emission=material.emission,
        )  # fmt: skip
        if material.texture:
            name = "{} {}".format(*material.texture)
            if spec.texture(name) is None:
                self.add_texture(spec, name, texture(*material.texture))
            added.textures[self.mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        return added.name

    def add_texture(self, spec, name: str, picture: np.ndarray) -> None:
        added = spec.add_texture(
            name=name, type=self.mujoco.mjtTexture.mjTEXTURE_2D,
            width=picture.shape[1], height=picture.shape[0], nchannel=3,
        )  # fmt: skip
        added.data = picture[::-1].tobytes()

    def add_sky(self, spec) -> None:
        sky = np.array(self.scene.sky)
        spec.add_texture(
            name="sky", type=self.mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=128, height=128,
            builtin=self.mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1=sky, rgb2=0.5 * sky + 0.5,
        )  # fmt: skip

    def add_light(self, spec, light) -> None:
        kinds = self.mujoco.mjtLightType
        sun = light.position is None
        spec.worldbody.add_light(
            type=kinds.mjLIGHT_DIRECTIONAL if sun else kinds.mjLIGHT_SPOT,
            pos=[0, 0, 0] if sun else light.position, dir=light.direction, diffuse=light.colour,
            specular=[0.4 * channel for channel in light.colour], castshadow=light.shadow,
            cutoff=light.cutoff_deg, exponent=light.exponent,
            attenuation=[1, 0, 0] if sun else [0.6, 0, 0.04],
        )  # fmt: skip

    # ----------------------------------------------------------------------- one moment

    def set(self, T_world_camera: np.ndarray, time_s: float) -> None:
        """Put the movers where they are at that time and the camera (optical frame) at a pose."""
        mujoco, quaternion = self.mujoco, np.zeros(4)
        for index, slot in self.mocap.items():
            T = self.scene.objects[index].pose(time_s)
            mujoco.mju_mat2Quat(quaternion, T[:3, :3].ravel())
            self.data.mocap_pos[slot], self.data.mocap_quat[slot] = T[:3, 3], quaternion
        mujoco.mju_mat2Quat(quaternion, (T_world_camera[:3, :3] * [1, -1, -1]).ravel())
        self.model.cam_pos[0], self.model.cam_quat[0] = T_world_camera[:3, 3], quaternion
        for index, light in enumerate(self.scene.lights):
            if light.position is None and light.shadow:  # the sun's shadow map follows the camera
                reach_m = self.scene.sun_reach_m
                middle = T_world_camera[:3, 3] + 0.5 * reach_m * T_world_camera[:3, 2]
                self.model.light_pos[index] = middle - 2 * reach_m * np.array(light.direction)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def render(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB (H, W, 3) uint8, depth (H, W) float32 metres (0 where there is nothing) and
        instance ids (H, W) uint16 (0 where there is nothing)."""
        rgb, _ = self.draw(ids=False)
        colours, buffer = self.draw(ids=True)
        instances = self.instances_from_colours(colours)
        depth_m = self.depth_from_buffer(buffer)
        depth_m[instances == 0] = 0
        return rgb, depth_m, instances

    def render_mirrored(self, T_world_camera: np.ndarray, time_s: float) -> np.ndarray:
        """What a mirror on the plane z = 0 would show at every pixel, RGB (H, W, 3) uint8.

        The camera is reflected below the floor and its picture turned upside down; the floor
        itself is not drawn. Leaves the camera there: call `set` before the next picture.
        """
        below, upside_down = np.diag([1.0, 1, -1, 1]), np.diag([1.0, -1, 1, 1])
        self.set(below @ T_world_camera @ upside_down, time_s)
        self.options.geomgroup[FLOOR_GROUP] = 0
        rgb, _ = self.draw(ids=False)
        self.options.geomgroup[FLOOR_GROUP] = 1
        return rgb[::-1]

    def draw(self, ids: bool) -> tuple[np.ndarray, np.ndarray]:
        """Colours (or identifier colours) (H, W, 3) uint8 and the depth buffer (H, W) float32."""
        mujoco, (width, height) = self.mujoco, self.size
        self.context.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self.model, self.data, self.options, None, self.camera, everything, self.view
        )
        if not ids:
            self.let_sun_in()
        for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR):
            self.view.flags[flag] = ids
        rectangle = mujoco.MjrRect(0, 0, width, height)
        colours, buffer = np.empty((height, width, 3), np.uint8), np.empty((height, width), "f4")
        mujoco.mjr_render(rectangle, self.view, self.gpu)
        mujoco.mjr_readPixels(colours, buffer if ids else None, rectangle, self.gpu)
        return colours[::-1], buffer[::-1]

    def let_sun_in(self) -> None:
        """Mark panes as decoration: MuJoCo draws those without a shadow."""
        if not self.panes:
            return
        for geom in self.view.geoms[: self.view.ngeom]:
            if geom.objtype == self.mujoco.mjtObj.mjOBJ_GEOM and geom.objid in self.panes:
                geom.category = self.mujoco.mjtCatBit.mjCAT_DECOR

    def instances_from_colours(self, colours: np.ndarray) -> np.ndarray:
        """Object index + 1 of every pixel from MuJoCo's identifier colours."""
        codes = colours.astype(np.int32) @ np.array([1, 256, 65536])
        table = np.zeros(self.view.ngeom + 2, np.uint16)
        for geom in self.view.geoms[: self.view.ngeom]:
            if geom.segid >= 0 and geom.objtype == self.mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = self.object_of_geom[geom.objid] + 1
        return table[codes]

    def depth_from_buffer(self, buffer: np.ndarray) -> np.ndarray:
        """Metres along the optical axis from OpenGL's reversed depth buffer."""
        near, far = NEAR_M, 4.0 * self.scene.far_m
        return (near * far / (near + buffer.astype(np.float64) * (far - near))).astype(np.float32)

    def cast(self, origin: np.ndarray, directions: np.ndarray, far_m: float):
        """Distance (N,) to the first surface along unit directions (N, 3), inf where there is
        none within `far_m`, and the instance id (N,) uint16 that was hit (0 for none)."""
        count = len(directions)
        geoms, ranges = np.full(count, -1, np.int32), np.full(count, -1.0)
        first = (self.model, self.data, np.array(origin, float), np.ravel(directions).astype(float))
        if tuple(int(number) for number in self.mujoco.__version__.split(".")[:2]) >= (3, 5):
            self.mujoco.mj_multiRay(*first, None, 1, -1, geoms, ranges, None, count, far_m)
        else:
            self.mujoco.mj_multiRay(*first, None, 1, -1, geoms, ranges, count, far_m)
        hit = (geoms >= 0) & (ranges <= far_m)
        ids = np.where(hit, self.object_of_geom[geoms] + 1, 0).astype(np.uint16)
        return np.where(hit, ranges, np.inf), ids

    def close(self) -> None:
        """Free what the scene holds on the graphics side."""
        self.context.make_current()
        self.gpu.free()
