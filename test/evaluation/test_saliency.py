"""What a depth network needs of an image: masks whose light, sparseness and error are known."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mde_ros.checkpoint import Checkpoint, save  # noqa: E402 - after the skip
from mde_ros.cli import main  # noqa: E402
from mde_ros.networks import NETWORKS, Network  # noqa: E402
from mde_ros.runtime import sha256_of  # noqa: E402

W, H, FAR_M = 64, 48, 3.5
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Brightness(torch.nn.Module):
    """Depth = 3 m + a tenth of the normalised pixel's sum."""

    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.offset + 0.1 * x.sum(1, keepdim=True)


class Stripe(torch.nn.Module):
    """Lets half of the light through in the leftmost columns, and a hundredth elsewhere."""

    def __init__(self, columns=48):
        super().__init__()
        self.columns = torch.nn.Parameter(torch.tensor(float(columns)))

    def forward(self, x):
        inside = torch.arange(x.shape[3]) < self.columns
        return torch.where(inside, 0.5, 0.01).expand(len(x), 1, *x.shape[2:])


@pytest.fixture
def masks(tmp_path, monkeypatch):
    """Checkpoints of the network and of masks of λ = 4 and 1, in this order."""
    monkeypatch.setitem(NETWORKS, "brightness", Network(Brightness, "known"))
    monkeypatch.setitem(NETWORKS, "stripe", Network(Stripe, "known"))
    n = tmp_path / "n.safetensors"
    save(n, Checkpoint("brightness", Brightness(), {"name": "n", "size": [W, H]}))
    spec = {"masks": [{"model": "n", "sha256": sha256_of(n)}]}
    found = []
    for weight, columns in ((4.0, 16), (1.0, 48)):
        found.append(tmp_path / f"lambda{weight:g}.safetensors")
        save(found[-1], Checkpoint("stripe", Stripe(columns), spec, {"sparseness": weight}))
    return n, found


def expected_rmse(bag, light):
    """Of depth from the images of a bag times a mask (W,), against a wall."""
    from mde_ros.datasets import open_dataset

    errors = []
    for sample in open_dataset(bag):
        x = (sample.frame.image / np.float32(255) - MEAN) / STD * light[:, None]
        errors.append((3 + 0.1 * x.sum(-1) - FAR_M) ** 2)
    return np.sqrt(np.mean(errors))


def test_table_page_and_sheet_of_masks_of_known_light(masks, write_bag, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    n, found = masks
    bag = write_bag(tmp_path / "b.mcap", [np.full((H, W), FAR_M, np.float32)] * 3)
    command = ["saliency", "--data", str(bag), "--model", str(n), "--masks", *map(str, found),
               "--out", str(tmp_path / "out"), "--device", "cpu", "--threads", "1"]  # fmt: skip
    assert main(command) == 0
    results = json.loads((tmp_path / "out/saliency.json").read_text())
    original, one, four = results["rows"]
    assert (one["lambda"], four["lambda"]) == (1, 4)
    columns = np.arange(W)
    assert original["soft"]["rmse_m"] == pytest.approx(expected_rmse(bag, np.ones(W)), rel=1e-5)
    for row, width in ((one, 48), (four, 16)):
        soft = np.where(columns < width, np.float32(0.5), np.float32(0.01))
        hard = (columns < width).astype(np.float32)
        assert row["soft"]["rmse_m"] == pytest.approx(expected_rmse(bag, soft), rel=1e-5)
        assert row["hard"]["rmse_m"] == pytest.approx(expected_rmse(bag, hard), rel=1e-5)
        assert row["sparseness"] == pytest.approx(width / W)
        assert row["mean"] == pytest.approx(soft.mean(), rel=1e-5)
    assert "the larger λ, the sparser the mask: holds" in results["verdict"]
    page = (tmp_path / "out/saliency.html").read_text("utf-8")
    for row in results["rows"]:
        assert f"{row['hard']['rmse_m']:.3f}" in page and f"{row['sparseness']:.3f}" in page
    assert page.count("<img ") == 3 * 3 * 3 + 1  # three frames, of three rows and columns; chart
    assert (tmp_path / "out/saliency.png").stat().st_size > 10_000
    assert "λ = 4" in capsys.readouterr().out


def test_with_a_low_threshold_everything_is_shown(masks, write_bag, tmp_path, monkeypatch):
    monkeypatch.setattr("mde_ros.evaluation.saliency_report.write_saliency_report", lambda *_: None)
    n, found = masks
    bag = write_bag(tmp_path / "b.mcap", [np.full((H, W), FAR_M, np.float32)])
    command = ["saliency", "--data", str(bag), "--model", str(n), "--masks", str(found[0])]
    command += ["--threshold", "0.005", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    original, row = json.loads((tmp_path / "out/saliency.json").read_text())["rows"]
    assert row["sparseness"] == 1 and row["hard"] == original["hard"]


def test_depth_network_in_the_place_of_a_mask_is_refused(masks, write_bag, tmp_path, capsys):
    n, _ = masks
    bag = write_bag(tmp_path / "b.mcap", [np.full((H, W), FAR_M, np.float32)])
    command = ["saliency", "--data", str(bag), "--model", str(n), "--masks", str(n)]
    assert main([*command, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "expected a mask" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
