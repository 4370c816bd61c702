"""
Losses: each a function with its formula, and a head that holds what it learns. Here they are by name.

A head is loaded when its name asks for it.
"""

import importlib
from dataclasses import dataclass

from sv_utils.base.errors import RequestError, nearest


@dataclass(frozen=True)
class Loss:
    """Where a loss's head is, and whether it knows each training speaker (else it compares those of a batch)."""

    module: str
    head: str
    knows_speakers: bool = True


LOSSES = {
    "softmax": Loss("softmax", "SoftmaxHead"),
    "contrastive": Loss("contrastive", "ContrastiveHead", knows_speakers=False),
    "cosface": Loss("cosface", "CosFaceHead"),
    "adacos": Loss("adacos", "AdaCosHead"),
    "aam": Loss("aam", "AamHead"),
    "sphereface2": Loss("sphereface2", "SphereFace2Head"),
    "ge2e": Loss("prototypes", "Ge2eHead", knows_speakers=False),
    "angular_prototypical": Loss("prototypes", "AngularPrototypicalHead", knows_speakers=False),
}


def head(name: str) -> type:
    """
    Give the class of a loss's head.

    Raises
    ------
    RequestError
        If there is no loss of that name.

    Examples
    --------
    >>> head("aam").__name__
    'AamHead'
    """
    if name not in LOSSES:
        raise RequestError(f"there is no loss {name!r}{nearest(name, LOSSES)}")
    return getattr(importlib.import_module(f"{__name__}.{LOSSES[name].module}"), LOSSES[name].head)
