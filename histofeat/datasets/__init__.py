"""Data sets: a folder or table on disk to a `PatchDataset`. Names and headers only, no pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
