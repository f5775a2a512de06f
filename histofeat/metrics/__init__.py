"""Metrics: labels and scores to numbers, each with its interval over patients."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
