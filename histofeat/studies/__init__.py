"""Studies: questions asked of an evaluation, each answered by a record."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
