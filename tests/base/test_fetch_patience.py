"""A download that breaks off again and again, but brings something each time."""

import contextlib
from types import SimpleNamespace

from sv_utils.base import fetch


class Answer(contextlib.nullcontext):
    """Of a server that sends these blocks."""

    is_redirect = False

    def __init__(self, status, headers, blocks):
        super().__init__(self)
        self.status_code, self.headers = status, headers
        self.raw = SimpleNamespace(stream=lambda *_, **__: blocks)


def test_failures_count_in_a_row_alone(tmp_path, monkeypatch):
    content, pauses = bytes(range(2 * fetch.ATTEMPTS)), []

    def request(method, url, headers, **_):
        first = int(headers.get("Range", "bytes=0-")[6:-1])

        def one_byte():
            yield content[first : first + 1]
            raise fetch.requests.ConnectionError

        told = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        status = 206 if first < len(content) else 416
        return Answer(status, told, one_byte())

    monkeypatch.setattr(fetch.requests, "request", request)
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    fetch.download("http://127.0.0.1/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content and pauses == [fetch.PAUSE] * len(content)
