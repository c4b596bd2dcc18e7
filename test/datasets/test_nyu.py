"""NYU-v2 in the three forms that are passed around: what was written comes back in metres."""

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.nyu import NyuHdf5, NyuLabelled, NyuPairs

h5py = pytest.importorskip("h5py", reason="h5py is not installed (mde_ros[datasets])")
FX, FY, CX, CY = 518.857901, 519.469611, 325.582449, 253.736166


def picture(i, height=480, width=640):
    """Colours and depth (metres) that tell frame, row and column."""
    v, u = np.mgrid[:height, :width]
    image = np.stack([np.full_like(u, 40 * i + 10), v % 256, u % 256], 2).astype(np.uint8)
    return image, (0.7 + i + 0.001 * u + 0.01 * v).astype(np.float32)


@pytest.fixture
def labelled(tmp_path):
    """Columns first, as MATLAB writes; splits in MATLAB's older format, counting from 1."""
    savemat = pytest.importorskip("scipy.io", reason="scipy is not installed").savemat
    folder = tmp_path / "nyu"
    folder.mkdir()
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        images, depths = zip(*(picture(i) for i in range(3)))
        file["images"] = np.stack([image.transpose(2, 1, 0) for image in images])
        file["depths"] = np.stack([depth.T for depth in depths])
        file["rawDepths"] = np.stack([np.where(d > 2, 0, d).T for d in depths])
    numbers = {"trainNdxs": np.array([[2]]), "testNdxs": np.array([[1], [3]], np.uint16)}
    savemat(folder / "splits.mat", numbers)
    return folder


def test_labelled_frames_stand_upright_in_metres_behind_the_kinect(labelled):
    data = open_dataset(labelled)
    assert isinstance(data, NyuLabelled) and len(data) == 3
    for i, sample in enumerate(data):
        image, depth = picture(i)
        assert np.array_equal(sample.frame.image, image)
        assert np.array_equal(sample.truth_m, depth)
        assert sample.frame.camera.K.tolist() == [[FX, 0, CX], [0, FY, CY], [0, 0, 1]]
    raw = open_dataset(labelled / "nyu_depth_v2_labeled.mat", filled=False)[1]
    assert np.array_equal(raw.truth_m, np.where(picture(1)[1] > 2, 0, picture(1)[1]))


def test_labelled_parts_are_those_of_the_official_split(labelled):
    names = {p: [s.name[-4:] for s in open_dataset(labelled, part=p)] for p in ("train", "test")}
    assert names == {"train": ["0002"], "test": ["0001", "0003"]}
    assert np.array_equal(open_dataset(labelled, part="test")[1].frame.image, picture(2)[0])


@pytest.fixture
def pairs(tmp_path):
    """The folders of the authors' zip, three quarters left out."""
    data = tmp_path / "data"
    lists = {"train": [], "test": []}
    for i, (part, name, kind) in enumerate(
        [("train", "den_0001_out/1", ".jpg"), ("test", "00000_colors", ".png")]
    ):
        image, depth = picture(i)
        depth_name = name.replace("colors", "depth") + ".png"
        folder = data / f"nyu2_{part}"
        (folder / name).parent.mkdir(parents=True)
        smooth = cv2.GaussianBlur(image, (0, 0), 9)
        cv2.imwrite(str(folder / f"{name}{kind}"), smooth[..., ::-1])
        steps = depth / 10 * 255 if part == "train" else depth * 1000
        kind_of = np.uint8 if part == "train" else np.uint16
        cv2.imwrite(str(folder / depth_name), np.rint(steps).clip(0, 65535).astype(kind_of))
        line = f"data/nyu2_{part}/{name}{kind},data/nyu2_{part}/{depth_name}\n"
        (data / f"nyu2_{part}.csv").write_text(line)
        lists[part] = smooth
    return data, lists


def test_training_depth_has_8_bits_over_10_m_and_test_depth_millimetres(pairs):
    data, images = pairs
    train, test = (open_dataset(data / f"nyu2_{p}.csv") for p in ("train", "test"))
    assert isinstance(train, NyuPairs) and (len(train), len(test)) == (1, 1)
    assert np.abs(train[0].truth_m - picture(0)[1]).max() <= 10 / 255 / 2 + 1e-6
    assert np.abs(test[0].truth_m - picture(1)[1]).max() <= 0.0005 + 1e-6
    assert np.array_equal(test[0].frame.image, images["test"])
    assert np.abs(train[0].frame.image.astype(int) - images["train"]).max() < 12  # JPEG
    assert (train[0].name, test[0].name) == ("den_0001_out/1", "nyu2_test/00000_colors")


@pytest.fixture
def frames(tmp_path):
    for part, scene in (("train", "den_0001"), ("train", "attic_0004"), ("val", "official")):
        folder = tmp_path / "nyudepthv2" / part / scene
        folder.mkdir(parents=True)
        for i in (1, 2):
            image, depth = picture(i, 240, 320)
            with h5py.File(folder / f"{i:05d}.h5", "w") as file:
                file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth
    return tmp_path / "nyudepthv2"


def test_hdf5_frames_come_back_and_their_camera_is_resized_along(frames):
    train = open_dataset(frames, part="train")
    assert isinstance(train, NyuHdf5)
    names = ["attic_0004/00001", "attic_0004/00002", "den_0001/00001", "den_0001/00002"]
    assert [s.name for s in train] == names
    sample = open_dataset(frames / "val")[1]
    image, depth = picture(2, 240, 320)
    assert np.array_equal(sample.frame.image, image) and np.array_equal(sample.truth_m, depth)
    K = sample.frame.camera.K
    assert K[[0, 1], [0, 1]] == pytest.approx([FX / 2, FY / 2])
    assert K[:2, 2] == pytest.approx([CX / 2 - 0.25, CY / 2 - 0.25])  # corners scale, not centres


def test_frames_are_no_neighbours_in_time(frames, labelled):
    for data in (open_dataset(frames, part="val"), open_dataset(labelled)):
        assert data[1].frame.stamp_ns - data[0].frame.stamp_ns > 10**9


def test_what_is_missing_or_of_another_kind_is_named(frames, labelled, pairs, tmp_path):
    with pytest.raises(DatasetError, match="part: expected one of train, val, got None"):
        open_dataset(frames)
    with h5py.File(frames / "val/official/00001.h5", "w") as file:
        file["rgb"] = np.zeros((3, 228, 304), np.uint8)
    with pytest.raises(DatasetError, match=r"00001\.h5: expected the field depth, it has rgb"):
        open_dataset(frames / "val")[0]
    with h5py.File(frames / "val/official/00001.h5", "a") as file:
        file["depth"] = np.zeros((228, 912), np.float32)
    with pytest.raises(DatasetError, match=r"image is 304x228, but its depth is \(228, 912\)"):
        open_dataset(frames / "val")[0]
    with h5py.File(frames / "val/official/00002.h5", "w") as file:
        file["rgb"], file["depth"] = np.zeros((3, 228, 912), np.uint8), np.zeros((228, 912))
    with pytest.raises(DatasetError, match="expected 640x480 or resized from it, got 912x228"):
        open_dataset(frames / "val")[1]

    with pytest.raises(DatasetError, match="part: expected train or test, got 'val'"):
        open_dataset(labelled, part="val")
    (labelled / "splits.mat").unlink()
    with pytest.raises(DatasetError, match=r"splits\.mat: no such file; it lists the frames"):
        open_dataset(labelled, part="test")
    (labelled / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DatasetError, match=r"labeled\.mat: expected HDF5"):
        open_dataset(labelled)

    data, _ = pairs
    (data / "nyu2_test/00000_depth.png").unlink()
    with pytest.raises(DatasetError, match=r"00000_depth\.png: expected a grey PNG .* no image"):
        open_dataset(data / "nyu2_test.csv")[0]
    (data / "nyu2_test.csv").write_text("a.png\n")
    with pytest.raises(DatasetError, match=r"nyu2_test\.csv, line 1: expected IMAGE,DEPTH"):
        open_dataset(data / "nyu2_test.csv")
    (data / "nyu2_test.csv").write_text("a.png,b.png\n")
    with pytest.raises(DatasetError, match=r"data/a\.png: no such file, nor from the folder above"):
        open_dataset(data / "nyu2_test.csv")
