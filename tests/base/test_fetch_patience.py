"""A download that breaks off again and again, but brings something each time."""

import contextlib
from types import SimpleNamespace

from sv_utils.base import fetch


def test_failures_count_in_a_row_alone(tmp_path, monkeypatch):
    content, pauses = bytes(range(2 * fetch.ATTEMPTS)), []

    def get(url, headers, **_):
        first = int(headers.get("Range", "bytes=0-")[6:-1])

        def one_byte():
            yield content[first : first + 1]
            raise fetch.requests.ConnectionError

        told = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        status = 206 if first < len(content) else 416
        return contextlib.nullcontext(
            SimpleNamespace(status_code=status, headers=told, iter_content=lambda _: one_byte())
        )

    monkeypatch.setattr(fetch.requests, "get", get)
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    fetch.download("http://127.0.0.1/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content and pauses == [fetch.PAUSE] * len(content)
