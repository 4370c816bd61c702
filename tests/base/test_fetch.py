"""Downloads that go on: a server that sends another part than the one that was asked for."""

import contextlib
from types import SimpleNamespace

import pytest

from sv_utils.base import fetch


class Answer(contextlib.nullcontext):
    """Of a server that sends these blocks."""

    is_redirect = False

    def __init__(self, status, headers, blocks):
        super().__init__(self)
        self.status_code, self.headers = status, headers
        self.raw = SimpleNamespace(stream=lambda *_, **__: blocks)


@pytest.mark.parametrize(("first", "expected"), [(4, b"0123456789"), (0, b"0123456789")])
def test_a_part_counts_from_where_the_server_says_that_it_begins(tmp_path, monkeypatch, first, expected):
    """Four bytes are here; the server goes on after them, or begins anew although it was asked to go on."""
    asked = []

    def request(method, url, headers, **_):
        asked.append(headers["Range"])
        told = {"Content-Range": f"bytes {first}-9/10"}
        return Answer(206, told, [expected[first:]])

    monkeypatch.setattr(fetch.requests, "request", request)
    (tmp_path / "file.part").write_bytes(expected[:4])
    fetch.download("http://127.0.0.1/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == expected and asked == ["bytes=4-"]
