"""Batches: what they hold, that they repeat, and that every utterance comes once a turn."""

import numpy as np
import pandas as pd
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.speech.reader import Speech
from sv_utils.training.batches import Crops

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


def integers(batch):
    """What `Crops.batch` gives in [-1, 1) as the store has it."""
    assert batch[0].dtype == np.float32 and np.abs(batch[0]).max() < 1
    return np.rint(32768 * batch[0]).astype(int), batch[1]


def test_each_utterance_comes_once_a_turn_and_batches_straddle_turns(speech):
    crops = Crops(speech, LABELS, batch_size=4, crop_samples=100, seed=3)
    rows = np.concatenate([crops.draw(step)[0] for step in range(3)])
    assert sorted(rows[:6]) == sorted(rows[6:]) == [0, 1, 2, 3, 4, 5]
    assert rows[:6].tolist() != rows[6:].tolist()


def test_a_crop_is_a_run_of_its_utterance_and_carries_its_label(speech):
    crops = Crops(speech, LABELS, batch_size=6, crop_samples=100, seed=3)
    starts = set()
    for step in range(20):
        waveforms, labels = integers(crops.batch(step))
        rows = waveforms[:, 0] // 1000
        assert (np.diff(waveforms, axis=1) == 1).all()
        assert labels.tolist() == LABELS[rows].tolist()
        assert (waveforms[:, -1] - 1000 * rows < np.array(LENGTHS)[rows]).all()
        starts.update((waveforms[:, 0] % 1000).tolist())
    assert len(starts) > 50


def test_short_utterances_repeat(speech):
    waveforms, _ = integers(Crops(speech, LABELS, batch_size=6, crop_samples=300, seed=0).batch(0))
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
    assert np.array_equal(np.asarray(resumed[0]), crops.batch(4)[0])


def test_balanced_batches_hold_k_crops_of_p_speakers(speech):
    crops = Crops(speech, LABELS, batch_size=4, crop_samples=100, seed=1, speakers_per_batch=2)
    for step in range(20):
        labels = LABELS[crops.draw(step)[0]]
        assert labels[0] == labels[1] != labels[2] == labels[3]
        for pair in (crops.draw(step)[0][:2], crops.draw(step)[0][2:]):
            assert pair[0] != pair[1] or LABELS[pair[0]] == 2  # speaker 2 has one utterance only


DRAWS = {  # what each step, and each seed, draws anew
    "balanced batches": ({"speakers_per_batch": 2}, lambda crops, step: crops.draw(step)[0]),
    "speeds": ({"speeds": (1.0, 0.9, 1.1)}, lambda crops, step: crops.draw(step)[1] // 3),
    "places": ({}, lambda crops, step: 32768 * crops.batch(step)[0][:, 0] % 1000),  # of equally long utterances
    "augmentation": ({"augmentation": lambda crops, rng: 0 * crops + rng.random()}, lambda c, s: c.batch(s)[0][:, 0]),
}


@pytest.mark.parametrize("what", DRAWS)
def test_each_step_and_each_seed_has_a_draw_of_its_own(speech, tmp_path, what):
    """Else a training would see one batch, one speed or one noise for ever."""
    settings, drawn = DRAWS[what]
    even = Speech(speech.table.assign(samples=250), tmp_path)
    seeds = [Crops(even, LABELS, 4, 100, seed=seed, **settings) for seed in (1, 2)]
    draws = [[tuple(np.round(drawn(crops, step), 6).tolist()) for step in range(12)] for crops in seeds]
    assert all(len(set(found)) >= 9 for found in draws), "of twelve steps few repeat another's draw"
    assert draws[0] != draws[1]
    assert draws[0] == [tuple(np.round(drawn(seeds[0], step), 6).tolist()) for step in range(12)]


@pytest.mark.parametrize(("batch_size", "speakers"), [(4, 3), (8, 4)])
def test_impossible_balance_is_refused(speech, batch_size, speakers):
    with pytest.raises(RequestError, match=f"speakers_per_batch {speakers} must divide"):
        Crops(speech, LABELS, batch_size, 100, seed=1, speakers_per_batch=speakers)


def noisy(crops, rng):
    return crops + rng.standard_normal(crops.shape, dtype=np.float32)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_see_together_what_one_would_see(speech, workers):
    crops = Crops(speech, LABELS, 8, 100, seed=3, augmentation=noisy, speeds=(1.0, 0.9))
    parts = [crops.batch(5, worker, workers) for worker in range(workers)]
    for whole, part in zip(crops.batch(5), zip(*parts)):
        assert np.array_equal(whole, np.concatenate(part))
    from_dataset = next(iter(crops.dataset(5, worker=1, workers=workers)))
    assert np.array_equal(from_dataset[0], parts[1][0]) and np.array_equal(from_dataset[1], parts[1][1])


def test_workers_split_a_balanced_batch_between_speakers(speech):
    crops = Crops(speech, LABELS, 4, 100, seed=1, speakers_per_batch=2)
    for worker in range(2):
        assert len(set(crops.batch(0, worker, 2)[1])) == 1


def test_workers_that_cannot_share_are_refused(speech):
    with pytest.raises(RequestError, match="2 workers cannot share a batch of 5 crops"):
        Crops(speech, LABELS, 5, 100, seed=1).dataset(0, 0, 2)


def test_a_speed_is_another_speaker_and_moves_the_pitch(tmp_path):
    """A tone of 1000 Hz sounds at 900 Hz when played at 0.9: the classes of three speakers become nine."""
    tone = 16000 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.tile(tone, 3).astype("<i2").tofile(tmp_path / "shard-00000.pcm")
    table = pd.DataFrame({"shard": "shard-00000.pcm", "offset": [0, 16000, 32000], "samples": 16000})
    crops = Crops(Speech(table, tmp_path), np.arange(3), 32, 8000, seed=0, speeds=(1.0, 0.9, 1.1))
    assert crops.n_classes == 9
    waveforms, classes = crops.batch(0)
    assert waveforms.shape == (32, 8000) and set(classes) == set(range(9))
    pitch = np.abs(np.fft.rfft(waveforms * np.hanning(8000), axis=1)).argmax(axis=1) * 2
    assert pitch.tolist() == np.array([1000, 900, 1100])[classes // 3].tolist()


def test_a_balanced_batch_keeps_speeds_apart(speech):
    crops = Crops(speech, LABELS, 8, 100, seed=1, speakers_per_batch=4, speeds=(1.0, 0.9))
    for step in range(10):
        classes = crops.draw(step)[1].reshape(4, 2)
        assert (classes[:, 0] == classes[:, 1]).all() and len(set(classes[:, 0])) == 4
        assert (LABELS[crops.draw(step)[0]] == classes.ravel() % 3).all()


def test_augmentation_depends_on_seed_step_and_place_alone(speech):
    crops, again = (Crops(speech, LABELS, 4, 100, seed=3, augmentation=noisy) for _ in range(2))
    first = crops.batch(2)[0]
    crops.batch(3)
    assert np.array_equal(crops.batch(2)[0], first) and np.array_equal(again.batch(2)[0], first)
    noise = first - Crops(speech, LABELS, 4, 100, seed=3).batch(2)[0]
    assert np.abs(np.corrcoef(noise)[np.triu_indices(4, 1)]).max() < 0.5


def test_impossible_speeds_are_refused(speech):
    with pytest.raises(RequestError, match="speeds must be factors"):
        Crops(speech, LABELS, 4, 100, seed=3, speeds=(1.0, 90.0))
