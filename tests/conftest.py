"""What holds for all tests."""

import os

import pytest

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")  # read at the first operation; see devices.spare_amx


@pytest.fixture(scope="session")
def prep(tmp_path_factory):
    """What 02_prep leaves, for six synthetic speakers with a pitch each: four to train on, two to validate on."""
    import small_training  # and with it Keras

    return small_training.prepared(tmp_path_factory.mktemp("outputs"))


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that several processes end together."""
    longest = ["test_types.py", "test_rehearsed.py", "test_notebooks.py"]
    items.sort(key=lambda item: -longest.index(item.path.name) if item.path.name in longest else 1)
