"""The images that are measured: real ones where they are given, a synthetic cohort otherwise."""

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

#: Height and width of a BreakHis image.
_LARGE = (460, 700)


class Material:
    """Patches, large images and a data set for one run.

    Parameters
    ----------
    data : Path or None
        Folder with ``idc/`` (or the patients of IDC themselves) and perhaps ``breakhis/``; None draws a cohort.
    scratch : Path
        Folder for what is drawn.
    quick : bool
        Whether a tiny cohort is enough.
    """

    def __init__(self, data, scratch, *, quick=False):
        self.data = data
        self.scratch = Path(scratch)
        self.quick = quick

    @cached_property
    def dataset(self):
        """The `PatchDataset`; without the official test patients of IDC, since some benchmarks score it."""
        from histofeat.datasets import load_idc, make_cohort
        from histofeat.studies import development_patients

        if self.data is None:
            size = {"n_patients": 6, "patches_per_patient": 25} if self.quick else {}
            return make_cohort(root=self.scratch / "cohort", random_state=0, **size)
        return development_patients(load_idc(self.data / "idc" if (self.data / "idc").is_dir() else self.data))

    @property
    def label(self) -> str:
        """What the 50x50 patches are, in words."""
        return "synthetic" if self.data is None else "real IDC"

    def different(self, n: int):
        """At most `n` patches of the data set, evenly over it and no two files alike, as a `PatchDataset`."""
        from histofeat.features import content_key

        seen, rows = set(), []
        for row in self._spread(len(self.dataset), min(len(self.dataset), n + n // 4)):
            key = content_key(Path(self.dataset.X[row]).read_bytes())
            if key not in seen:
                seen.add(key)
                rows.append(row)
        return self.dataset.subset(np.array(rows[:n]))

    def patches(self, n: int) -> tuple[list[bytes], np.ndarray]:
        """PNG bytes and decoded RGB (n, 50, 50, 3) uint8 of at most `n` whole patches, evenly over the data set."""
        files, decoded = [], []
        for row in self._spread(len(self.dataset), min(len(self.dataset), 2 * n)):
            content = Path(self.dataset.X[row]).read_bytes()
            patch = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            if patch.shape == (50, 50, 3):
                files.append(content)
                decoded.append(cv2.cvtColor(patch, cv2.COLOR_BGR2RGB))
        keep = self._spread(len(files), min(len(files), n))
        return [files[at] for at in keep], np.stack([decoded[at] for at in keep])

    def large(self, n: int) -> tuple[str, list[np.ndarray]]:
        """Words and RGB (460, 700, 3) uint8 of `n` BreakHis images, or of mosaics of synthetic patches."""
        paths = [] if self.data is None else sorted((self.data / "breakhis").rglob("*.png"))
        found = (cv2.imread(str(paths[at])) for at in self._spread(len(paths), min(len(paths), n)))
        images = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in found]
        if images:
            return "real BreakHis images, {1}x{0}".format(*images[0].shape), images
        return "mosaics of synthetic patches, {1}x{0}".format(*_LARGE), [self._mosaic(seed) for seed in range(n)]

    def _mosaic(self, seed: int) -> np.ndarray:
        _, patches = self.patches(150)
        rng = np.random.default_rng(seed)
        tiles = patches[rng.integers(0, len(patches), (10, 14))]
        return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(500, 700, 3)[: _LARGE[0]])

    @staticmethod
    def _spread(size: int, n: int) -> np.ndarray:
        return np.linspace(0, size - 1, n).round().astype(int)
