"""Evaluation: pipelines on patients that they have not learnt from, every score with its interval."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
