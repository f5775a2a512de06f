"""The import directions and sizes that keep the package readable, checked on the source and in a fresh process."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import histofeat

ROOT = Path(histofeat.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

#: Layers from the ground up; a module may import its own layer (where not a family) and those before it.
LAYERS = [
    {"exceptions"},
    {"store", "images", "mapped_images", "tiles", "views", "model_selection", "holdouts"},
    {"bootstrap", "metrics", "class_scores", "kernel_svm", "forest", "quadratic", "temperature", "results"},
    {"thresholds", "calibration", "conformal", "statistics"},
    {"datasets", "encoders"},
    {"features"},
    {"normalization", "perturbations", "networks"},
    {"heads", "pixel_head", "soft_vote", "enough_patients", "search", "named_parts", "pipeline"},
    {"saving", "image_prediction"},
    {"split_audit"},
    {
        "encoder_training",
        "folds",
        "known_patients",
        "retraining",
        "plans",
        "feature_bank",
        "fitting",
        "scoring",
        "evaluation",
    },
    {"shortcuts", "explanation", "robustness", "learning_curves", "predictions", "model_training"},
    {"reporting"},
    {"cli"},
]
#: What only one file may import, and only inside a function.
HEAVY = {
    "keras": {"encoders", "networks"},
    "tensorflow": {"encoders"},
    "openvino": {"encoders"},
    "torch": {"encoders"},
    "timm": {"encoders"},
    "huggingface_hub": {"encoders"},
    "safetensors": {"encoders"},
    "matplotlib": {"reporting"},
    "xgboost": {"heads", "saving"},
    "mapie": {"conformal"},
    "skops": {"saving"},
}


def layer_of(part: str) -> int:
    for level, names in enumerate(LAYERS):
        if part in names:
            return level
    raise AssertionError(f"{part} stands in no layer: add it to LAYERS")


def imports(path: Path):
    """Yield (module, whether inside a function) for every import of a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module, id(node) in inside


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    if path == ROOT / "__init__.py":
        return
    level = layer_of(part_of(path))
    for module, _ in imports(path):
        if module.startswith("histofeat."):
            target = module.split(".")[1]
            assert layer_of(target) <= level, f"{path.name} imports {module}, which lies above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_stay_in_the_file_that_owns_them(path):
    for module, inside in imports(path):
        owner = HEAVY.get(module.split(".")[0])
        if owner is not None:
            assert part_of(path) in owner, f"{path.name} imports {module}"
            assert inside, f"{path.name} imports {module} outside a function"


def test_families_do_not_import_each_other():
    # The embedding is what every family that a network measures stands on.
    shared = {"base", "cooccurrence", "embedding", "neighbourhoods", "stains", "families", "union"}
    families = {path.stem for path in (ROOT / "features").glob("*.py")} - shared - {"__init__"}
    for family in families:
        for module, _ in imports(ROOT / "features" / f"{family}.py"):
            assert module.removeprefix("histofeat.features.") not in families - {family}


def test_features_know_nothing_of_patients_labels_files_or_figures():
    forbidden = {"datasets", "model_selection", "metrics", "evaluation", "reporting", "heads", "pipeline"}
    for path in (ROOT / "features").glob("*.py"):
        for module, _ in imports(path):
            assert not (module.startswith("histofeat.") and module.split(".")[1] in forbidden), path


def test_no_drawer_for_everything():
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc", "util"}


def code_lines(node: ast.AST) -> int:
    """Lines of a definition without its docstring."""
    body = node.body
    first = body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_grows_too_long(path):
    text = path.read_text()
    assert text.count("\n") <= 400, "a file stays under 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node) <= 45, f"{node.name} is longer than a page"
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno <= 250, f"{node.name} is too long"


def fresh(code: str) -> dict:
    """Run code in a new interpreter that prints JSON."""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


def test_importing_histofeat_loads_nothing_and_changes_nothing():
    code = """
import json, logging, os, random, socket, sys
environment, state, handlers = dict(os.environ), random.getstate(), list(logging.root.handlers)
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
before = set(sys.modules)
import histofeat
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({
    "loaded": sorted(loaded - set(sys.stdlib_module_names)),
    "same": [environment == dict(os.environ), state == random.getstate(), handlers == logging.root.handlers],
}))
"""
    assert fresh(code) == {"loaded": ["histofeat"], "same": [True, True, True]}


def test_the_pipeline_loads_without_networks_figures_or_boosting():
    code = """
import json, sys
from histofeat import IDCPipeline
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    assert not {"tensorflow", "keras", "openvino", "matplotlib", "xgboost", "numba", "cv2"} & set(fresh(code))
