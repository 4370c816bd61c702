"""Scores with speaker effects whose true error rate is known."""

import math

import numpy as np
from scipy import stats


def design(seed, n_speakers=26, distance=3.4):
    """Scores with speaker effects whose true EER is known: both kinds of trials are Gaussian over speakers."""
    rng = np.random.default_rng(seed)
    effect, similarity = rng.normal(0, 0.5, n_speakers), rng.normal(0, 0.35, n_speakers)
    own = np.repeat(np.arange(n_speakers), 40)
    enrol = rng.integers(n_speakers, size=3000)
    test = (enrol + rng.integers(1, n_speakers, size=3000)) % n_speakers
    target = distance + effect[own] + rng.normal(0, 0.8, len(own))
    nontarget = similarity[enrol] + similarity[test] + rng.normal(0, 0.8, 3000)
    labels = np.repeat([1, 0], (len(own), 3000))
    truth = stats.norm.cdf(-distance / (math.hypot(0.5, 0.8) + math.sqrt(2 * 0.35**2 + 0.8**2)))
    return np.concatenate([target, nontarget]), labels, np.append(own, enrol), np.append(own, test), truth
