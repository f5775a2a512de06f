"""What computed the numbers: Python, packages, processor. Never a host name, a user name or a path."""

import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["describe_environment"]

_PACKAGES = (
    "histofeat",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scikit-image",
    "scipy",
    "opencv-python-headless",
    "numba",
    "xgboost",
    "xgboost-cpu",
    "keras",
    "tensorflow",
    "openvino",
    "joblib",
    "matplotlib",
)


def describe_environment(device="CPU"):
    """Facts about the interpreter and the machine that a reader needs to reproduce a number.

    Parameters
    ----------
    device : str
        What the networks ran on, in words; only the caller knows.

    Returns
    -------
    dict
        Keys ``python``, ``platform``, ``cpu``, ``cores``, ``device``, ``packages`` (name -> version, installed ones).
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": _cores(),
        "device": device,
        "packages": _versions(),
    }


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name" and name.strip():
                return name.strip()
    return platform.processor() or platform.machine()


def _cores():
    # A container often may use fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions():
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
