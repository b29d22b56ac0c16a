"""Loss landscapes and Hessian spectra of neural networks, with an error bar on every number."""

import lazy_loader

__version__ = "0.2.0"

# Each name is imported when it is first asked for, from where `__init__.pyi` says.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
