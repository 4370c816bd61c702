"""What the card says of each corpus."""

from pathlib import Path

from sv_utils import voices
from sv_utils.models import pretrained
from sv_utils.reports import card
from sv_utils.voices import ratios


def test_only_corpora_that_are_trained_on_are_said_to_train():
    mini, ocean, *_ = card._data({"corpora": ["mini", "ocean"], "train_corpora": ["ocean"]})
    assert mini.startswith("- **mini**: its lists judge.")
    assert ocean.startswith("- **ocean**: its dev speakers train and calibrate.")


def test_the_tables_that_are_shown_are_those_that_calibration_has_written():
    content = ratios.read("campplus")
    assert card.in_short(content) in Path(voices.__file__).with_name("README.md").read_text("utf-8")
    written = Path(pretrained.__file__).with_name("campplus_conditions.md").read_text("utf-8")
    assert card.of_conditions(content) == written
