"""Processes that make batches: the same batches whatever their number, and they end with the training."""

import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.speech.reader import Speech
from sv_utils.training import augment, readers
from sv_utils.training.batches import Crops


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Four utterances of noise, augmented and at two speeds."""
    folder = tmp_path_factory.mktemp("store")
    np.random.default_rng(0).integers(-9000, 9000, 4 * 4000, np.int16).tofile(folder / "shard.pcm")
    table = {"shard": "shard.pcm", "offset": [0, 4000, 8000, 12000], "samples": 4000, "speaker": list("aabb")}
    speech = Speech(pd.DataFrame(table), folder)
    augmentation = augment.Augmentation(augment.OFF | {"noise": 0.5, "telephone": 0.5}, speech)
    return Crops(speech, np.array([0, 0, 1, 1]), 4, 2000, 3, augmentation=augmentation, speeds=(1.0, 0.9))


@pytest.mark.parametrize(("number", "worker", "workers"), [(1, 0, 1), (3, 1, 2)])
def test_batches_are_the_same_whatever_the_number_of_readers(crops, number, worker, workers):
    with readers.Readers(crops, number, 5, worker, workers) as made:
        processes = [reader._process for reader in made._readers]
        for step in range(5, 12):
            assert all(map(np.array_equal, made.batch(step), crops.batch(step, worker, workers)))
    assert len(processes) == number and all(process.poll() is not None for process in processes)
    assert not np.any(made.batch(12)[0])  # who still asks gets nothing, and no error


def test_a_reader_that_dies_or_fails_is_told(crops):
    with readers.Readers(crops, 1) as made:
        made._readers[0]._process.kill()
        made._readers[0]._process.wait()
        with pytest.raises(WorkError, match=r"has died.*engine\.readers"):
            [made.batch(step) for step in range(9)]
        assert isinstance(made.failure, WorkError)
    shard = crops.speech._root / "shard.pcm"
    content = shard.read_bytes()
    shard.unlink()
    try:
        with readers.Readers(crops, 1) as made, pytest.raises(RequestError, match=r"shard\.pcm is missing"):
            made.batch(0)
    finally:
        shard.write_bytes(content)


KILLED = """
    import pickle, sys, time
    from sv_utils.training import readers
    made = readers.Readers(pickle.load(open(sys.argv[1], "rb")), 2)
    made.batch(0)
    print(*(reader._process.pid for reader in made._readers), flush=True)
    time.sleep(60)
"""


def test_readers_end_when_the_training_is_killed(crops, tmp_path):
    (tmp_path / "crops").write_bytes(pickle.dumps(crops))
    line = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "crops")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as training:
        pids = list(map(int, training.stdout.readline().split()))
        assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
        training.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, pids))


def test_as_many_readers_as_cores_where_nothing_else_is_said():
    assert readers.count(-1) == len(psutil.Process().cpu_affinity())
    assert readers.count(0) == 0 and readers.count(7) == 7
    with pytest.raises(RequestError, match=r"engine\.readers is -1"):
        readers.count(-2)
