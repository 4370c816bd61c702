"""Layers that a file gives back."""

import pytest

from sv_utils.models.features import InstanceNormalization


@pytest.mark.parametrize("variance", [True, False])
def test_a_normalisation_of_the_mean_alone_stays_one(variance):
    layer = InstanceNormalization(variance=variance)
    assert InstanceNormalization.from_config(layer.get_config()).variance is variance
