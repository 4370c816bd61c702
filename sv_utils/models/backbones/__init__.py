"""
The network between features and pooling, by name.

A module of this folder with `NAMES` holds backbones; each name begins with the module's own (``resnet34``: `resnet`).
Where it has `NORMALIZED`, that says what its authors normalise over the batch: ``pooling``, ``embedding``, or both.
It is loaded when a name asks for it, so that a content key counts the one that is used, and no other.
"""

import importlib
import pkgutil
from types import ModuleType

from sv_utils.base.errors import RequestError, nearest


def get(name: str) -> ModuleType:
    """
    Give the module of a backbone: ``NAMES``, and ``add(x, architecture)``, which adds it to a functional model.

    Raises
    ------
    RequestError
        If there is no backbone of that name.

    Examples
    --------
    >>> get("resnet34").__name__
    'sv_utils.models.backbones.resnet'
    """
    for module in _modules(name):
        if name in getattr(module, "NAMES", ()):
            return module
    raise RequestError(f"backbone: there is no {name!r}{nearest(name, names())}")


def names() -> list[str]:
    """Name all backbones."""
    return [name for module in _modules() for name in getattr(module, "NAMES", ())]


def register_layers() -> None:
    """Make the layers of all backbones known to Keras, which loads a saved model by them."""
    list(_modules())


def _modules(beginning: str | None = None) -> list[ModuleType]:
    """All modules of this folder, or those with which a name begins."""
    stems = [found.name for found in pkgutil.iter_modules(__path__)]
    wanted = [stem for stem in stems if beginning is None or beginning.startswith(stem)]
    return [importlib.import_module(f"{__name__}.{stem}") for stem in wanted]
