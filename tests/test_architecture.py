"""The rules of the house: one straight path of wings, faces, no circles, heavy packages in their wing, short pieces."""

import ast
import json
import subprocess
import sys

import measure_house as house
import pytest

MODULES = house.modules()
#: Heavy packages, and the wing that may import them: inside a function, so that importing histofeat stays quick.
HEAVY = {
    "dask": "features",
    "distributed": "features",
    "huggingface_hub": "networks",
    "keras": "networks",
    "matplotlib": "reporting",
    "openslide": "images",
    "openvino": "networks",
    "pooch": "datasets",
    "safetensors": "networks",
    "skops": "models",
    "tensorflow": "networks",
    "tifffile": "images",
    "tiffslide": "images",
    "timm": "networks",
    "torch": "networks",
    "xgboost": "models",
}
#: Packages that open, decode or transform pixels.
PIXELS = {"PIL", "cv2", "skimage", "tifffile", "tiffslide", "openslide"}
#: Packages that compute or fit.
COMPUTING = {"numba", "scipy", "sklearn", "xgboost", "statsmodels"}
#: Words for labels and those who carry them.
LABELS = {"y", "labels", "target", "targets"}


def named(path):
    return str(path.relative_to(house.PACKAGE))


def all_imports(path):
    """Yield (module, whether inside a function) for every import of a file."""
    tree = house.tree_of(path)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module, id(node) in inside


def packages(path):
    return {module.split(".")[0] for module, _ in all_imports(path)}


def wing(path):
    return house.wing_of(house.dotted(path))


def test_the_package_has_twelve_wings_and_nothing_beside_them():
    assert {entry.removesuffix(".py") for entry in house.entries()} == {*house.WINGS, "__init__"}


def test_wings_import_only_wings_below_them():
    assert house.upward() == []


def test_wings_import_each_other_through_faces_only():
    assert house.past_faces() == []


def test_no_circle_between_files():
    assert house.circles() == []


def test_faces_name_what_exists_and_each_name_once():
    for folder in (house.PACKAGE, *(house.PACKAGE / name for name in house.WINGS)):
        if not (folder / "__init__.pyi").exists():
            continue
        listed = [
            alias.name
            for node in house.tree_of(folder / "__init__.pyi").body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        assert len(listed) == len(set(listed)), folder.name


def test_the_files_of_a_wing_are_private():
    for path in MODULES:
        private = path.name.startswith("_") or path.parent == house.PACKAGE
        assert private, f"{named(path)}: what is public is what a face lists"


def test_heavy_packages_stay_in_their_wing():
    for path in MODULES:
        for module, inside in all_imports(path):
            owner = HEAVY.get(module.split(".")[0])
            if owner is not None:
                assert wing(path) == owner, f"{named(path)} imports {module}"
                assert inside, f"{named(path)} imports {module} outside a function"


def test_datasets_decode_no_pixel():
    for path in house.modules(house.PACKAGE / "datasets"):
        if path.parent.name == "synthetic":  # draws images, which are files of its own
            continue
        assert not packages(path) & PIXELS, path
        assert not {name for _, name, _ in house.imports(path)} & {"read_patch", "decode_patch", "Images"}, path


def test_reporting_computes_nothing():
    for path in house.modules(house.PACKAGE / "reporting"):
        assert not packages(path) & COMPUTING, path
        calls = {node.attr for node in ast.walk(house.tree_of(path)) if isinstance(node, ast.Attribute)}
        assert not calls & {"fit", "predict", "predict_proba"}, path


@pytest.mark.parametrize("name", ["images", "features"])
def test_images_and_features_know_no_label(name):
    for path in house.modules(house.PACKAGE / name):
        for node in ast.walk(house.tree_of(path)):
            # scikit-learn's methods take a y that they ignore; in a kernel y is a coordinate.
            if isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "fit")):
                arguments = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
                coordinates = {"x", "y"} <= arguments
                assert coordinates or not arguments & LABELS, f"{path}: {node.name}"


def test_families_do_not_import_each_other():
    from histofeat.features import FAMILIES

    # The embedding is what every family that a network measures stands on.
    families = {record.module for record in FAMILIES.values()} - {"embedding"}
    for family in families:
        others = {f"histofeat.features._{other}" for other in families - {family}}
        path = house.PACKAGE / "features" / f"_{family}.py"
        assert not {module for module, _ in all_imports(path)} & others, family


def test_no_drawer_for_everything():
    assert not {path.stem.lstrip("_") for path in MODULES} & {"utils", "helpers", "common", "misc", "util"}


def code_lines(node):
    """Lines of a definition without its docstring."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


def test_nothing_grows_too_long():
    for path in MODULES:
        assert path.read_text().count("\n") <= 400, f"{named(path)}: a file stays under 400 lines"
        for node in ast.walk(house.tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                assert code_lines(node) <= 45, f"{named(path)}: {node.name} is longer than a page"
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno <= 250, f"{named(path)}: {node.name} is too long"


def test_the_house_stays_within_its_measures():
    over = [row for row in house.table() if row[1] > row[2]]
    assert not over, "run python tests/measure_house.py --detail"


def fresh(code):
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
    assert fresh(code) == {"loaded": ["histofeat", "lazy_loader"], "same": [True, True, True]}


def test_the_pipeline_loads_without_networks_figures_or_boosting():
    code = """
import json, sys
from histofeat import IDCPipeline
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    assert not {"tensorflow", "keras", "openvino", "matplotlib", "xgboost", "numba", "cv2"} & set(fresh(code))
