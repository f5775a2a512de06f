"""What an import costs, each in a fresh interpreter."""

import json
import subprocess
import sys
import tempfile

from rows import DisagreementError, Target, compare
from timing import race

__all__ = ["measure"]

_HEAVY = {"keras", "matplotlib", "openvino", "tensorflow", "xgboost"}
_SNIPPET = """
import json, sys, time
started = time.perf_counter()
{code}
print(json.dumps([time.perf_counter() - started, list(sys.modules)]))
"""


def measure(material, options) -> list:
    """Two rows: the bare package, and the pipeline against the scikit-learn that it needs."""
    repeats = 2 if options.quick else 9
    bare = race({"ours": lambda: _run("import histofeat")[0]}, repeats, clock=lambda run: run())
    _, loaded = _run("import histofeat")
    _check_light(loaded, {"sklearn", "numba", "cv2", "pandas"} | _HEAVY, "import histofeat")
    _, loaded = _run("from histofeat import IDCPipeline")
    _check_light(loaded, _HEAVY, "from histofeat import IDCPipeline")
    needed = [name for name in loaded if name.split(".")[0] == "sklearn"]
    peer = f"import importlib\nfor name in {needed}: importlib.import_module(name)"
    if not set(needed) <= set(_run(peer)[1]):
        raise DisagreementError("imports: expected the peer to load the same modules of scikit-learn.")
    sides = {"ours": lambda: _run("from histofeat import IDCPipeline")[0], "peer": lambda: _run(peer)[0]}
    timings = race(sides, repeats, clock=lambda run: run())
    others = sorted({name.split(".")[0] for name in loaded} & {"pandas", "cv2", "numba", "scipy", "joblib", "pyarrow"})
    return [
        compare(
            bare["ours"],
            name="imports/histofeat",
            group="imports",
            what="import histofeat",
            target=Target("at most", 0.3, "ours"),
            checked="no scikit-learn, numba, OpenCV, pandas, keras, tensorflow, openvino, matplotlib, xgboost loaded",
        ),
        compare(
            timings["ours"],
            timings["peer"],
            name="imports/IDCPipeline",
            group="imports",
            what="from histofeat import IDCPipeline",
            peer_name=f"the {len(needed)} modules of scikit-learn that it loads, alone",
            ratio_of="ours / peer",
            target=Target("at most", 0.3, "ours - peer"),
            checked="both load the same modules of scikit-learn; no keras, tensorflow, openvino, matplotlib, xgboost",
            note=f"Other packages that are loaded with it: {', '.join(others)}.",
        ),
    ]


def _run(code: str) -> tuple[float, list[str]]:
    """Seconds of `code` in a fresh interpreter whose own start is not counted, and the modules it then holds."""
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [sys.executable, "-c", _SNIPPET.format(code=code)]
        found = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(found.stdout)
    return seconds, modules


def _check_light(loaded, unwanted, what) -> None:
    heavy = sorted(unwanted & {name.split(".")[0] for name in loaded})
    if heavy:
        raise DisagreementError(f"{what}: expected none of {', '.join(sorted(unwanted))} loaded, got {heavy}.")
