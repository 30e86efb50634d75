"""Find SAE features that go with reasoning, try to prove them wrong, switch them, and see which layers matter."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the public names stand in __init__.pyi
