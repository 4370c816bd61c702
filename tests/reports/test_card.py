"""The card of a model of one's own, line for line, and what the card says of each corpus."""

import hashlib
import json
from pathlib import Path

import pytest

from sv_utils import corpora, voices
from sv_utils.base.errors import RequestError
from sv_utils.models import pretrained
from sv_utils.reports import card
from sv_utils.voices import ratios

ENCODER = {"parameters": 1234567, "dimensions": 64, "sha256": hashlib.sha256(b"weights").hexdigest()}
POINT = {"name": "equal error", "threshold": 0.41234, "false_accept": [0.02, 0.01, 0.08], "miss": [0.04, 0.03, 0.09]}
GROUP = {"by": "gender", "group": "f", "n_speakers": 9, "p_fa": 0.03, "p_miss": None}
ROW = {"model": "softmax", "loss": "aam", "list": "mini", "n_speakers": 18, "n_target": 100, "n_nontarget": 1000}
ROW |= {"eer": 0.1007, "eer_low": 0.0678, "eer_high": 0.147, "encoder": ENCODER}
OTHER = ROW | {"model": "softmax + AS-norm", "list": "ocean", "eer": 0.09, "eer_low": 0.09, "eer_high": 0.09}
WANTED = """\
# softmax

Speaker encoder, waveforms of 16 kHz: 1,234,567 parameters, 64 dimensions
trained under the loss aam. sha256 of the file: {sha256}.

## Data

- **mini**: its lists judge. Licence: {mini}
- **ocean**: its dev speakers train and calibrate. Licence: {ocean}

The licences of the data decide what the weights may be used for.

## Error rates

| scores            | list  | speakers | trials | EER                    |
|-------------------|-------|----------|--------|------------------------|
| softmax           | mini  | 18       | 1,100  | 10.07% [6.78%, 14.70%] |
| softmax + AS-norm | ocean | 18       | 1,100  | 9.00%                  |

Intervals: 95 %, over speakers. Thresholds come from dev speakers, the rates at them from the list.

| list | operating point | threshold | false accepts        | misses               |
|------|-----------------|-----------|----------------------|----------------------|
| mini | equal error     | 0.412     | 2.00% [1.00%, 8.00%] | 4.00% [3.00%, 9.00%] |

By groups, at one threshold:

| list | by     | group | speakers | false accepts | misses |
|------|--------|-------|----------|---------------|--------|
| mini | gender | f     | 9        | 3.00%         |        |

## Limits

{limits}

## How it was made

Commit abc, seed 7:
```json
{{
 "batch": 3
}}
```
"""


@pytest.fixture
def model(tmp_path):
    """The file of a model whose evaluation lies beside its training stage."""
    prepared = {"parameters": {"corpora": ["mini"], "train_corpora": ["ocean"]}, "seed": 1, "git": {"commit": "old"}}
    made = {"parameters": {"batch": 3}, "seed": 7, "git": {"commit": "abc"}}
    for stage, record in (("02_prep", prepared), ("03_train_softmax", made), ("08_evaluate@softmax", {})):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "run.json").write_text(json.dumps(record))
    (tmp_path / "08_evaluate@softmax/calibration.json").touch()
    rows = [ROW | {"operating_points": [POINT], "by_group": [GROUP]}, OTHER]
    (tmp_path / "08_evaluate@softmax/metrics.json").write_text(json.dumps(rows))
    (tmp_path / "03_train_softmax/model.keras").write_bytes(b"weights")
    return tmp_path / "03_train_softmax/model.keras"


def test_the_card_of_a_model_of_ones_own_line_for_line(model):
    known = {name: corpora.get(name) for name in ("mini", "ocean")}
    said = {name: f"{one.licence} Source: {one.citation} {one.session_note}".strip() for name, one in known.items()}
    wanted = WANTED.format(sha256=ENCODER["sha256"], limits=card.LIMITS_TEXT, **said)
    assert card.of_model(model) == wanted == card.of_model(str(model))


def test_a_card_without_points_groups_or_git_leaves_them_out(model):
    (model.parent / "run.json").write_text(json.dumps({"parameters": {}, "seed": 7, "git": None}))
    (model.parent.parent / "08_evaluate@softmax/metrics.json").write_text(json.dumps([ROW]))
    text = card.of_model(model)
    assert "Commit unknown, seed 7:" in text and "operating point" not in text and "groups, at" not in text
    (model.parent / "run.json").unlink()
    with pytest.raises(RequestError, match=r"03_train_softmax/run\.json is missing; run the stages again"):
        card.of_model(model)


def test_only_corpora_that_are_trained_on_are_said_to_train():
    mini, ocean, *_ = card._data({"corpora": ["mini", "ocean"], "train_corpora": ["ocean"]})
    assert mini.startswith("- **mini**: its lists judge.")
    assert ocean.startswith("- **ocean**: its dev speakers train and calibrate.")


def test_the_tables_that_are_shown_are_those_that_calibration_has_written():
    content = ratios.read("campplus")
    assert card.in_short(content) in Path(voices.__file__).with_name("README.md").read_text("utf-8")
    written = Path(pretrained.__file__).with_name("campplus_conditions.md").read_text("utf-8")
    assert card.of_conditions(content) == written
    about = pretrained.card("campplus")
    head = [f"# {about['title']}\n"]
    for said, field in (
        ("Paper", "paper"),
        ("Weights", "weights"),
        ("Licence", "licence"),
        ("Trained on", "trained_on"),
    ):
        head.append(f"- {said}: {about[field]}")
    head += [f"- Limits: {about['limits']}\n", "## campplus by conditions\n"]
    assert card.of_published("campplus").startswith("\n".join(head))
    assert card.of_published("campplus").count("\n## ") == 1 and card.of_published("ge2e") is None
