"""What holds for all tests."""

import pytest


@pytest.fixture(scope="session")
def prep(tmp_path_factory):
    """What 02_prep leaves, for six synthetic speakers with a pitch each: four to train on, two to validate on."""
    import small_training  # and with it Keras

    return small_training.prepared(tmp_path_factory.mktemp("outputs"))


def pytest_collection_modifyitems(items):
    """Begin with the file that takes longest, so that several processes end together."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
