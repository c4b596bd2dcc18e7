"""All metadata of the package; serves both `pip install .` and `colcon build`."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "mde_ros"
NODES = [f"{n} = mde_ros.nodes.{n}:main" for n in ("depth_node", "completion_node", "status_text")]

setup(
    name=NAME,
    version="0.1.0",
    description="Metric depth images and point clouds from one camera and perhaps a 2-D LiDAR",
    long_description=(Path(__file__).resolve().parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="mde_ros maintainers",
    maintainer_email="maintainers@mde-ros.org",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        NAME: ["weights/*", "nodes/*.xml", "evaluation/*.j2", "samples/*"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", [str(p) for p in Path("launch").glob("*.launch.py")]),
        (
            f"share/{NAME}/config",
            [*map(str, Path("config").glob("*.*")), f"{NAME}/nodes/fastdds.xml"],
        ),
        (f"share/{NAME}/config/train", [str(p) for p in Path("config/train").glob("*")]),
    ],
    install_requires=[
        "setuptools",
        "numpy>=1.23",
        "opencv-python-headless>=4.6",
        "PyYAML",
        "onnxruntime>=1.16",
        "rosbags>=0.11",
        "rosbags-image>=0.10",
        "rich>=13",
    ],
    extras_require={
        "ros": [
            "ros-jazzy-rclpy[fastrtps]",
            "ros-jazzy-builtin-interfaces",
            "ros-jazzy-rcl-interfaces",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-nav-msgs",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-visualization-msgs",
            "ros-jazzy-rosgraph-msgs",
            "ros-jazzy-lifecycle-msgs",
        ],
        "training": ["torch", "safetensors", "onnx", "lightning-fabric"],
        "report": ["matplotlib", "jinja2"],
        "sim": ["mujoco>=3.3.4,<4"],
        "datasets": ["h5py", "scipy"],
        "openvino": ["openvino"],
        "ray": ["ray"],
        "timm": ["timm"],
        "transformers": ["transformers"],
        "view": ["rerun-sdk>=0.41"],
        "docs": ["mkdocs-material>=9.6"],
        "dev": [
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "mypy",
            "types-PyYAML",
            "ros-jazzy-domain-coordinator",
        ],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": ["mde = mde_ros.cli:main", *NODES],
    },
)
