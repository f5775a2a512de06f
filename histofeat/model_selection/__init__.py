"""Patients and splits: ids in one canonical form, folds of whole patients, checked rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
