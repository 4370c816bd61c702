"""What holds for all tests."""


def pytest_collection_modifyitems(items):
    """Begin with the file that takes longest, so that several processes end together."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
