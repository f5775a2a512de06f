"""Images: paths or arrays to uint8 RGB patches. The only wing that decodes pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
