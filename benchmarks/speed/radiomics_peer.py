"""pyradiomics's GLCM statistics, in a separate process: the package needs older dependencies than histofeat.

    python radiomics_peer.py IMAGES.npy VALUES.npy     # the other process; one line of input, one timed pass

PyPI has a source distribution only, which imports NumPy while it is built. Into an environment of its own:
``pip install numpy "setuptools<70" wheel versioneer cython`` and then ``pip install --no-build-isolation pyradiomics``.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: histofeat's name of a statistic -> pyradiomics's. Its difference variance is another quantity.
FEATURES = {
    "asm": "JointEnergy",
    "contrast": "Contrast",
    "correlation": "Correlation",
    "variance": "SumSquares",
    "idm": "Idm",
    "sum_average": "SumAverage",
    "sum_variance": "ClusterTendency",
    "sum_entropy": "SumEntropy",
    "entropy": "JointEntropy",
    "difference_entropy": "DifferenceEntropy",
    "imc1": "Imc1",
    "imc2": "Imc2",
}


class Worker:
    """A process with pyradiomics that holds the images (n, H, W) uint8 and measures them on request.

    Raises
    ------
    ImportError
        If that interpreter cannot import pyradiomics.
    """

    def __init__(self, python, images):
        self._scratch = tempfile.TemporaryDirectory(prefix="histofeat-radiomics-")
        python = str(python or sys.executable)
        if subprocess.run([python, "-c", "import radiomics"], capture_output=True, check=False).returncode:
            self._scratch.cleanup()
            raise ImportError(
                "pyradiomics is not installed in the interpreter asked. It needs an environment of its own, built with "
                "--no-build-isolation (its source imports NumPy to build); name it with --radiomics-python."
            )
        given, kept = (Path(self._scratch.name) / name for name in ("images.npy", "values.npy"))
        np.save(given, images)
        self._process = subprocess.Popen(
            [python, __file__, str(given), str(kept)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.time()
        self.values = np.load(kept)

    def time(self) -> float:
        """Seconds of one pass over all images, as the process measured them."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._scratch.cleanup()


def _measure(images):
    """Mean over four directions of the twelve statistics, at fixed levels of eight grey values."""
    import SimpleITK
    from radiomics.glcm import RadiomicsGLCM

    mask = SimpleITK.GetImageFromArray(np.ones((1, *images.shape[1:]), np.uint8))
    rows = []
    for image in images:
        volume = SimpleITK.GetImageFromArray(image[np.newaxis].astype(np.float64))
        family = RadiomicsGLCM(volume, mask, binWidth=8, force2D=True, force2Ddimension=0, distances=[1])
        family.disableAllFeatures()
        for name in FEATURES.values():
            family.enableFeatureByName(name)
        found = family.execute()
        row = [float(found[name]) for name in FEATURES.values()]
        # It numbers the levels of each image from 1.
        row[list(FEATURES).index("sum_average")] += 2 * (int(image.min()) // 8 - 1)
        rows.append(row)
    return np.array(rows)


def _serve(given, kept):
    import logging

    import radiomics

    radiomics.logger.setLevel(logging.ERROR)
    images = np.load(given)
    for _ in sys.stdin:
        started = time.perf_counter()
        values = _measure(images)
        seconds = time.perf_counter() - started
        np.save(kept, values)
        print(seconds, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
