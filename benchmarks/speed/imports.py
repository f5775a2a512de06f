"""What an import costs, each in a fresh interpreter."""

import json
import subprocess
import sys
import tempfile

from rows import DisagreementError, compare, race

_HEAVY = {"keras", "matplotlib", "openvino", "tensorflow", "xgboost"}
_SNIPPET = """
import json, sys, time
started = time.perf_counter()
{code}
print(json.dumps([time.perf_counter() - started, list(sys.modules)]))
"""


def measure(material, options) -> list:
    """Two rows: the bare package, and the pipeline against the scikit-learn that it needs."""
    bare, pipeline, repeats = "import histofeat", "from histofeat import IDCPipeline", 2 if options.quick else 9
    _check_light(_run(bare)[1], {"sklearn", "numba", "cv2", "pandas"} | _HEAVY, bare)
    _, loaded = _run(pipeline)
    _check_light(loaded, _HEAVY, pipeline)
    needed = [name for name in loaded if name.split(".")[0] == "sklearn"]
    peer = f"import importlib\nfor name in {needed}: importlib.import_module(name)"
    if not set(needed) <= set(_run(peer)[1]):
        raise DisagreementError("imports: expected the peer to load the same modules of scikit-learn.")
    [alone] = race(bare, repeats=repeats, clock=lambda code: _run(code)[0])
    timed = race(pipeline, peer, repeats=repeats, clock=lambda code: _run(code)[0])
    others = sorted({name.split(".")[0] for name in loaded} & {"pandas", "cv2", "numba", "scipy", "joblib", "pyarrow"})
    return [
        compare(
            alone,
            name="imports/histofeat",
            what=bare,
            checked="no scikit-learn, numba, OpenCV, pandas, keras, tensorflow, openvino, matplotlib, xgboost loaded",
        ),
        compare(
            *timed,
            name="imports/IDCPipeline",
            what=pipeline,
            peer_name=f"the {len(needed)} modules of scikit-learn that it loads, alone",
            ratio_of="ours / peer",
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
