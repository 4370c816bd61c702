"""Batches: what they hold, that they repeat, and that every utterance comes once a turn."""

import numpy as np
import pandas as pd
import pytest

from sv_utils.batches import Crops
from sv_utils.errors import RequestError
from sv_utils.store import Speech

LENGTHS = [400, 900, 250, 1000, 640, 800]  # samples
LABELS = np.array([0, 0, 0, 1, 1, 2])


@pytest.fixture
def speech(tmp_path):
    """Six utterances; sample t of utterance i is 1000 i + t, so that a crop tells where it was cut."""
    samples = [1000 * i + np.arange(length) for i, length in enumerate(LENGTHS)]
    np.concatenate(samples).astype("<i2").tofile(tmp_path / "shard-00000.pcm")
    offsets = np.cumsum([0, *LENGTHS[:-1]])
    table = pd.DataFrame({"shard": "shard-00000.pcm", "offset": offsets, "samples": LENGTHS})
    return Speech(table, root=tmp_path)


def test_each_utterance_comes_once_a_turn_and_batches_straddle_turns(speech):
    crops = Crops(speech, LABELS, batch_size=4, crop_samples=100, seed=3)
    rows = np.concatenate([crops.rows(step) for step in range(3)])
    assert sorted(rows[:6]) == sorted(rows[6:]) == [0, 1, 2, 3, 4, 5]
    assert rows[:6].tolist() != rows[6:].tolist()


def test_a_crop_is_a_run_of_its_utterance_and_carries_its_label(speech):
    crops = Crops(speech, LABELS, batch_size=6, crop_samples=100, seed=3)
    starts = set()
    for step in range(20):
        waveforms, labels = crops.batch(step)
        rows = waveforms[:, 0] // 1000
        assert (np.diff(waveforms, axis=1) == 1).all()
        assert labels.tolist() == LABELS[rows].tolist()
        assert (waveforms[:, -1] - 1000 * rows < np.array(LENGTHS)[rows]).all()
        starts.update((waveforms[:, 0] % 1000).tolist())
    assert len(starts) > 50


def test_short_utterances_repeat(speech):
    waveforms, _ = Crops(speech, LABELS, batch_size=6, crop_samples=300, seed=0).batch(0)
    short = waveforms[waveforms[:, 0] // 1000 == 2][0]
    assert short[:250].tolist() == list(range(2000, 2250)) and short[250:].tolist() == list(range(2000, 2050))


def test_batch_depends_on_seed_and_number_alone(speech):
    first = Crops(speech, LABELS, 4, 100, seed=3)
    first.batch(0), first.batch(1)
    again = Crops(speech, LABELS, 4, 100, seed=3)
    assert (first.batch(7)[0] == again.batch(7)[0]).all()
    assert (first.batch(7)[0] != Crops(speech, LABELS, 4, 100, seed=4).batch(7)[0]).any()


def test_dataset_resumes_in_the_middle_and_scales_to_one(speech):
    crops = Crops(speech, LABELS, 4, 100, seed=3)
    whole = [batch for batch, _ in zip(crops.dataset(), range(5))]
    resumed = next(iter(crops.dataset(first_step=4)))
    assert np.array_equal(whole[4][0], resumed[0]) and np.array_equal(whole[4][1], resumed[1])
    assert np.array_equal(np.asarray(resumed[0]), crops.batch(4)[0] / np.float32(32768))


def test_balanced_batches_hold_k_crops_of_p_speakers(speech):
    crops = Crops(speech, LABELS, batch_size=4, crop_samples=100, seed=1, speakers_per_batch=2)
    for step in range(20):
        labels = LABELS[crops.rows(step)]
        assert labels[0] == labels[1] != labels[2] == labels[3]
        for pair in (crops.rows(step)[:2], crops.rows(step)[2:]):
            assert pair[0] != pair[1] or LABELS[pair[0]] == 2  # speaker 2 has one utterance only


@pytest.mark.parametrize(("batch_size", "speakers"), [(4, 3), (8, 4)])
def test_impossible_balance_is_refused(speech, batch_size, speakers):
    with pytest.raises(RequestError, match=f"speakers_per_batch {speakers} must divide"):
        Crops(speech, LABELS, batch_size, 100, seed=1, speakers_per_batch=speakers)
