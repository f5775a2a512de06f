"""Honest classical baselines on breast histology: handcrafted features against CNN embeddings, split by patient.

Names are loaded when they are first used, so that ``import histofeat`` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
