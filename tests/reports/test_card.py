"""What the card says of each corpus."""

from sv_utils.reports import card


def test_only_corpora_that_are_trained_on_are_said_to_train():
    mini, ocean, *_ = card._data({"corpora": ["mini", "ocean"], "train_corpora": ["ocean"]})
    assert mini.startswith("- **mini**: its lists judge.")
    assert ocean.startswith("- **ocean**: its dev speakers train and calibrate.")
