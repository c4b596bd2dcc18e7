"""A model that was trained on video: refused as it is, taken once it has been scaled."""

import pytest

pytest.importorskip("torch")

from mde_ros.checkpoint import Checkpoint, save
from mde_ros.export import export
from mde_ros.training.scale import open_relative, scaled, write


def test_relative_model_is_refused_and_scaled_one_taken(bench, planted, tmp_path, capfd):
    path = tmp_path / "relative.safetensors"
    spec = {"focal_px": 60.0, "pixels": 64 * 64}
    save(path, Checkpoint("video_mobilenet_v2", planted("video_mobilenet_v2"), spec))
    export(path, path.with_suffix(".onnx"))
    assert not bench.make(model=str(path.with_suffix(".onnx"))).start()
    assert "relative.onnx is relative; `mde scale`" in capfd.readouterr().err

    metric = write(scaled(open_relative(path), 30.0, {}), tmp_path / "metric.safetensors")
    assert bench.make(model=str(metric)).start()
