"""What the networks of one stage tell the next, frame by frame on disk (METHODS 8).

    objects/NAME.npz  depth (h, w) float16, of the scene; ground (h, w) bool; masks (K, 3, h, w)
                      bool, the objects at t-1, t, t+1; dynamic (K,) bool
    shapes/NAME.npz   shapes (pixels,) float16: D^o inside the masks at t, one after the other
    labels/NAME.npz   depth (h, w) float16, moving (h, w) bool; of frames with a dynamic object

Compressed, so about 1.5 bytes a pixel in all. A file that is there is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mde_ros.model import normalised
from mde_ros.networks.motion import MotionNet
from mde_ros.networks.video import PoseNet, VideoNet
from mde_ros.photometric import project, transform, unproject
from mde_ros.training.dynamic_frames import Frames, each_frame, read_npz, write_npz
from mde_ros.training.dynamic_masks import (
    GROUND_TOLERANCE,
    carried,
    decide,
    found_masks,
    heights,
    optical_flow,
    residual_size,
)
from mde_ros.training.dynamic_objects import object_depths, pseudo_label, scales
from mde_ros.training.dynamic_scene import camera_motions, own_motions, seen_depth

Marked = Callable[[int], np.ndarray]  # number of a triplet → masks (K, h, w)


@dataclass(frozen=True)
class Scene:
    """The networks of stage 1.

    Attributes:
        focal_px: canonical focal length.
    """

    depth: VideoNet
    pose: PoseNet
    motion: MotionNet
    focal_px: float

    @torch.no_grad()
    def look(self, images: np.ndarray, K: np.ndarray, flow_by: str) -> tuple[np.ndarray, ...]:
        """Of three frames (3, h, w, 3) uint8: depth (h, w), and of both neighbours the whole flow
        and what of it the camera's motion leaves over, (2, 2, h, w) each."""
        device = next(self.depth.parameters()).device
        frames = [as_tensor(image).to(device)[None] for image in images]
        K_all = torch.from_numpy(K).to(device)[None]
        depth = seen_depth(self.depth, normalised(frames[1]), K_all, self.focal_px)
        T = camera_motions(self.pose, frames)
        points = [transform(T_source, unproject(depth, K_all)) for T_source in T]
        rigid = [project(p, K_all)[0] for p in points]
        grid = project(unproject(depth, K_all), K_all)[0]
        if flow_by == "images":
            flow = np.stack([optical_flow(images[1], images[k]) for k in (0, 2)])
        else:
            kept, _ = own_motions(self.motion, frames, depth, T, K_all)
            moved = [project(p, K_all, m)[0] for p, m in zip(points, kept)]
            flow = torch.cat([m - grid for m in moved]).cpu().numpy()
        return depth[0, 0].cpu().numpy(), flow, flow - torch.cat(rigid).sub(grid).cpu().numpy()


def as_tensor(image: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 → (3, h, w) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"


def mine_objects(
    frames: Frames,
    scene: Scene,
    marked: Marked | None,
    flow_by: str,
    least_share: float,
    out: Path,
) -> None:
    """The scene's depth, the ground, the objects and which of them move by themselves.

    Args:
        marked: the masks of a frame's objects; None: found by depth and motion.
        flow_by: "network", MotionNet, or "images", optical flow between them.
        least_share: see residual_size.
    """
    for i in each_frame(frames, "objects"):
        file = file_of(out, frames.names[i])
        if file.is_file():
            continue
        depth, flow, residual = scene.look(frames.images_of(i), frames.K[i], flow_by)
        height = heights(depth, frames.K[i])
        moved_px = residual_size(residual, flow, least_share)
        masks = marked(i) if marked else found_masks(depth, height, moved_px)
        three = [np.stack([carried(m, flow[0]), m, carried(m, flow[1])]) for m in masks]
        taken = np.array(three, bool).reshape(-1, 3, *depth.shape)
        write_npz(
            file,
            {
                "depth": depth.astype(np.float16),
                "ground": (np.abs(height) < GROUND_TOLERANCE) & ~masks.any(0),
                "masks": taken,
                "dynamic": decide(masks, moved_px, height),
            },
        )


def mine_shapes(frames: Frames, network: VideoNet, objects: Path, out: Path) -> None:
    """D^o of every object."""
    device = next(network.parameters()).device
    for i in each_frame(frames, "shapes"):
        file = file_of(out, frames.names[i])
        if file.is_file():
            continue
        masks = read_npz(file_of(objects, frames.names[i]))["masks"][:, 1]
        values = np.zeros(0, np.float16)
        if len(masks):
            image = as_tensor(frames.images_of(i)[1]).to(device)
            shapes = object_depths(network, image, torch.from_numpy(masks)[:, None].to(device))
            values = shapes[:, 0].cpu().numpy()[masks].astype(np.float16)
        write_npz(file, {"shapes": values})


def shapes_of(objects: dict[str, np.ndarray], file: Path) -> np.ndarray:
    """(K, h, w) float32, D^o inside the masks and 0 outside."""
    masks = objects["masks"][:, 1]
    shapes = np.zeros(masks.shape, np.float32)
    shapes[masks] = read_npz(file)["shapes"]
    return shapes


def road_depth(objects: dict[str, np.ndarray]) -> np.ndarray:
    """The scene's depth where there is ground, else 0: (h, w) float32."""
    return np.where(objects["ground"], objects["depth"], 0).astype(np.float32)


def mine_labels(frames: Frames, network: nn.Module, objects: Path, shapes: Path, out: Path) -> None:
    """The pseudo label of every frame with a dynamic object."""
    device = next(network.parameters()).device
    for i in each_frame(frames, "labels"):
        name = frames.names[i]
        found = read_npz(file_of(objects, name))
        if file_of(out, name).is_file() or not found["dynamic"].any():
            continue
        of_frame = shapes_of(found, file_of(shapes, name))[found["dynamic"]]
        beta = scales(
            network,
            as_tensor(frames.images_of(i)[1]).to(device),
            torch.from_numpy(road_depth(found))[None].to(device),
            torch.from_numpy(of_frame)[:, None].to(device),
        )
        label = pseudo_label(found["depth"].astype(np.float32), of_frame, beta.cpu().numpy())
        moving = found["masks"][found["dynamic"], 1].any(0)
        write_npz(file_of(out, name), {"depth": label.astype(np.float16), "moving": moving})


def picture(path: Path, frames: Frames, objects: Path, labels: Path, count: int = 8) -> None:
    """So many frames: image with objects (red: dynamic, green: static), depth, pseudo label."""
    rows = []
    for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int):
        name = frames.names[i]
        found = read_npz(file_of(objects, name))
        shown = frames.images_of(i)[1].astype(np.float32)
        for mask, dynamic in zip(found["masks"][:, 1], found["dynamic"]):
            shown[mask] = 0.6 * shown[mask] + 0.4 * np.array(
                (255, 0, 0) if dynamic else (0, 255, 0)
            )
        depth = found["depth"].astype(np.float32)
        far = float(np.percentile(depth, 95))
        file = file_of(labels, name)
        label = read_npz(file)["depth"].astype(np.float32) if file.is_file() else depth
        rows.append(np.hstack([shown.astype(np.uint8), coloured(depth, far), coloured(label, far)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def coloured(depth: np.ndarray, far: float) -> np.ndarray:
    """Near is bright: (h, w, 3) uint8 RGB of inverse depth."""
    level = np.clip(255 * (far / 8) / np.maximum(depth, 1e-6), 0, 255).astype(np.uint8)
    return cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
