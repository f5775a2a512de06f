"""Networks: pretrained encoders and their engines, and the classifier that is trained on patches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
