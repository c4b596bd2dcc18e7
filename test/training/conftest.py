"""Rooms whose depth can be read off their brightness, so that a network has something to learn."""

import json

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Runtimes set torch's threads for the whole process; tiny networks only wait for them."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def plane_folder(tmp_path):
    """(name, number) → RGB-D folder of 64x48 slopes, 1 to 8 m; grey value = 30 · depth."""

    def write(name="planes", number=6, focal=60.0):
        folder = tmp_path / name
        for part in ("rgb", "depth"):
            (folder / part).mkdir(parents=True)
        K = {"fx": focal, "fy": focal, "cx": 31.5, "cy": 23.5, "width": 64, "height": 48}
        (folder / "intrinsics.json").write_text(json.dumps(K))
        rng = np.random.default_rng(4)
        for i in range(number):
            near, far = np.exp(np.sort(rng.uniform(0, np.log(8), 2)))
            depth = np.tile(np.linspace(far, near, 48)[:, None], (1, 64))
            rgb = np.repeat((30 * depth)[..., None], 3, 2).astype(np.uint8)
            cv2.imwrite(str(folder / f"rgb/{i:03}.png"), rgb)
            cv2.imwrite(str(folder / f"depth/{i:03}.png"), (1000 * depth).astype(np.uint16))
        return folder

    return write
