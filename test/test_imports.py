"""Who may import whom: the table of the design, held; a new module is added to it on purpose."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mde_ros

ROOT = Path(mde_ros.__file__).parent
CORE = {"frame", "config", "geometry"}
OPENED = {"attacks", "defence", "model", "checkpoint", "networks"}  # an attack opens the pipeline
# Unit (module or package of mde_ros) → the units it may import. Everything but itself.
TABLE = {
    "frame": set(),
    "config": set(),
    "metrics": set(),
    "isolation": set(),
    "domains": {"config"},
    "defence": set(),
    "weights": set(),
    "geometry": {"frame"},
    "losses": {"geometry"},
    "photometric": set(),
    "attacks": {"losses", "model"},
    "networks": set(),
    "checkpoint": {"networks"},
    "model": {"networks", "checkpoint"},
    "runtime": {"model", "checkpoint", "config", "weights"},
    "export": {"model", "checkpoint", "runtime"},
    "pipeline": {"runtime", "domains", "defence", *CORE},
    "datasets": {"frame", "geometry"},
    "simulation": {"frame", "geometry"},
    # The benchmark feeds a node, away from any robot.
    "evaluation": {"datasets", "pipeline", "metrics", "runtime", "isolation", *OPENED, *CORE},
    # The player is a node that reads bags.
    "nodes": {"pipeline", "runtime", "datasets", "isolation", *CORE},
}
TABLE["training"] = {u for u in TABLE if u not in ("nodes", "weights", "isolation")}
TABLE["reproduce"] = {*TABLE["training"], "training"}
# The node over DDS, and the commands so large that they have modules of their own.
TABLE["live"] = {"nodes", "datasets", "runtime", "evaluation", "isolation", *CORE}
TABLE["view"] = {"datasets", "pipeline", "evaluation", *CORE}
TABLE["demo"] = set(TABLE)
TABLE["cli"] = {*TABLE, "__init__"}
TABLE["__init__"] = set()
# Inside training: recipes stand on these and never on each other; report is not theirs.
TRAINING_GROUND = {
    "batches", "dynamic_frames", "dynamic_masks", "dynamic_mining", "dynamic_objects",
    "dynamic_scene", "dynamic_settings", "dynamic_stages", "ewc", "hugging_face", "initial", "loop",
    "masks", "memory", "mixing", "state", "statistics", "teacher", "triplets", "validation",
}  # fmt: skip
FORBIDDEN_FILES = {"training": {"evaluation.report"}}


def modules():
    """Dotted name below mde_ros → path of every module."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(path, at_load_only):
    """Modules of ours that a file imports; at_load_only leaves out those inside functions."""
    found = set()

    def visit(node):
        if at_load_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [(node.module, alias.name) for alias in node.names]
        else:
            names = []
        for module, member in names:
            if module == "mde_ros" and member in (None, "__version__"):
                found.add("__init__")
            elif module == "mde_ros":
                found.add(member)
            elif module.startswith("mde_ros."):
                inner = module.removeprefix("mde_ros.")
                nested = f"{inner}.{member}"
                found.add(nested if nested in MODULES else inner)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def unit(module):
    return module.split(".")[0]


def test_every_module_has_its_row_in_the_table():
    assert {unit(m) for m in MODULES} <= set(TABLE), (
        "a new part of the package: where does it stand?"
    )


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_the_table_allows(module):
    for imported in imports(MODULES[module], at_load_only=False):
        other = unit(imported)
        assert other == unit(module) or other in TABLE[unit(module)], f"{module} imports {imported}"
        assert imported not in FORBIDDEN_FILES.get(unit(module), ()), f"{module} imports {imported}"


def test_recipes_stand_on_the_loop_and_not_on_each_other():
    for module, path in MODULES.items():
        if unit(module) == "training" and module != "training":
            siblings = {i.split(".")[1] for i in imports(path, False) if i.startswith("training.")}
            assert siblings <= TRAINING_GROUND, f"{module} imports {siblings - TRAINING_GROUND}"


def test_nothing_imports_the_command_line():
    assert not any("cli" in imports(path, False) for path in MODULES.values())


def test_table_and_modules_have_no_cycle():
    """Units with all their imports, modules with those that run when they are loaded."""
    list(TopologicalSorter(TABLE).static_order())
    at_load = {module: imports(path, True) - {module} for module, path in MODULES.items()}
    list(TopologicalSorter(at_load).static_order())


def python(code):
    """Run code in a fresh interpreter; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LIGHT = """
import sys, numpy as np
import mde_ros.cli, mde_ros.pipeline, mde_ros.datasets, mde_ros.evaluation.evaluate
from mde_ros.config import PipelineSettings
from mde_ros.frame import Camera, Frame
from mde_ros.pipeline import DepthPipeline
camera = Camera(64, 48, np.diag([60.0, 60.0, 1.0]))
pipeline = DepthPipeline(PipelineSettings(model=sys.argv[1], device="cpu", threads=1))
assert pipeline(Frame(np.zeros((48, 64, 3), np.uint8), camera)).depth.shape == (48, 64)
NODE
print(*sorted({m.split(".")[0] for m in sys.modules}))
"""


@pytest.mark.parametrize("node", [False, True])
def test_torch_is_never_imported_on_the_way_of_onnxruntime(students, node):
    if node:
        pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    code = LIGHT.replace("NODE", "import mde_ros.nodes.depth_node" if node else "")
    path = str(students["fast_mobilenet_v2"][1])
    loaded = python(f"import sys; sys.argv[1:] = [{path!r}]\n{code}")
    assert "onnxruntime" in loaded
    assert not {"torch", "lightning_fabric", "matplotlib", "mujoco"} & set(loaded)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mde_ros.cli", {"numpy", "cv2", "torch", "rclpy", "yaml", "rich", "onnxruntime"}),
        ("mde_ros.frame", {"cv2", "torch", "rclpy"}),
        ("mde_ros.config", {"numpy", "cv2", "torch", "rclpy"}),
        ("mde_ros.runtime", {"cv2", "torch", "rclpy", "onnxruntime"}),
        ("mde_ros.pipeline", {"torch", "rclpy", "onnxruntime"}),
        ("mde_ros.metrics", {"torch", "rclpy"}),
    ],
)
def test_module_loads_without_the_heavy_libraries_it_does_not_need(module, absent):
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    assert not absent & set(python(code))
