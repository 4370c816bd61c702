"""A head that is made again from its configuration, as on several devices."""

import pytest

from sv_utils.losses.adacos import AdaCosHead


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_scale_that_is_fixed_stays_fixed_in_a_twin(dynamic):
    assert AdaCosHead.from_config(AdaCosHead(5, dynamic=dynamic).get_config()).dynamic is dynamic
