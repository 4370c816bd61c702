"""The kinds of scores that one encoder gives."""

# Behind the name of a model: how its scores were made, where they are no plain cosines.
AS_NORM, QMF = " + AS-norm", " + AS-norm + QMF"


def base_and_scoring(system: str) -> tuple[str, str]:
    """
    Part the name of a system into its model and the kind of its scores.

    Examples
    --------
    >>> base_and_scoring("adacos + AS-norm + QMF")
    ('adacos', 'AS-norm, QMF')
    >>> base_and_scoring("adacos")
    ('adacos', 'cosine')
    """
    model, _, kind = system.partition(" + ")
    return model, kind.replace(" + ", ", ") or "cosine"
