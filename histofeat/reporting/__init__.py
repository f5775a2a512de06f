"""Reporting: records to a page, figures and files. It computes no score."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
