"""Foreign networks that are known by the hash of their file need no description beside it."""

import pytest

from mde_ros.runtime import ModelError
from mde_ros.runtime.onnx_runtime import foreign_spec

FASTDEPTH = "6275c23f467d476874d0eecea2a2c7059733ca6681de4f17bfbfe3fc3a52a71d"


def test_fastdepth_is_known_under_any_file_name(tmp_path):
    spec = foreign_spec(tmp_path / "renamed.onnx", FASTDEPTH)
    assert (spec.name, spec.size, spec.focal_px, spec.foreign) == (
        "fastdepth",
        (224, 224),
        229.6,
        True,
    )


def test_description_beside_the_file_goes_first(tmp_path):
    (tmp_path / "net.yaml").write_text("size: [64, 32]\n")
    spec = foreign_spec(tmp_path / "net.onnx", FASTDEPTH)
    assert (spec.name, spec.size, spec.focal_px) == ("net", (64, 32), None)


def test_unknown_network_without_description_says_what_to_write(tmp_path):
    with pytest.raises(ModelError, match=r"net\.yaml is not beside it; write one that gives size"):
        foreign_spec(tmp_path / "net.onnx", "0" * 64)
