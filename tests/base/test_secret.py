"""The personal key is shown by nothing that is stored or printed."""

import pytest

from sv_utils.base import errors, fetch, secret
from sv_utils.base.errors import RequestError, WorkError

KEY = "k3y/+ of mine"
WRITTEN = [KEY, "k3y/%2B%20of%20mine", "k3y%2F%2B%20of%20mine", "k3y%2F%2B+of+mine"]


@pytest.fixture(autouse=True)
def keyed(monkeypatch):
    monkeypatch.setenv("SV_VOXCELEB_KEY", KEY)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_key_is_scrubbed_however_it_is_written(form):
    assert secret.scrubbed(f"https://host/{form}/x?file=a") == "https://host/.../x?file=a"


def test_a_key_with_signs_that_json_escapes_is_scrubbed(monkeypatch):
    monkeypatch.setenv("SV_VOXCELEB_KEY", 'a"b\\cé')
    assert secret.scrubbed('the key a"b\\cé is') == "the key ... is"
    assert secret.scrubbed('{"x": "a\\"b\\\\cé", "y": "a\\"b\\\\c\\u00e9"}') == '{"x": "...", "y": "..."}'


def test_a_key_that_is_given_to_a_command_is_scrubbed(monkeypatch):
    monkeypatch.setattr(secret, "_given", set())
    secret.keep("longer than K")
    secret.keep(None)
    assert secret.scrubbed("longer than Kings") == "...ings"
    monkeypatch.setenv("SV_VOXCELEB_KEY", "abc")  # no key is as short, and words hold it
    assert secret.scrubbed("abcd") == "abcd"
    monkeypatch.setenv("SV_VOXCELEB_KEY", "abcd")
    assert secret.scrubbed("abcde") == "...e"


def test_of_keys_and_spellings_within_each_other_the_longest_goes_first(monkeypatch):
    monkeypatch.setattr(secret, "_given", {"k3y/+ of", f"{KEY} and yours"})
    assert secret.scrubbed(f"{KEY} and yours, {KEY}, k3y/+ of") == "..., ..., ..."
    monkeypatch.setattr(secret, "_given", {"zebra", "a zebra of mine"})
    assert secret.scrubbed("a zebra of mine") == "..."
    monkeypatch.setenv("SV_VOXCELEB_KEY", '"mine')
    assert secret.scrubbed('{"x": "\\"mine"}') == '{"x": "..."}'
    monkeypatch.setenv("SV_VOXCELEB_KEY", r"\mine")
    assert secret.scrubbed(r'{"x": "\\mine"}') == '{"x": "..."}'


def test_a_command_that_fails_shows_no_key(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(errors.tempfile, "gettempdir", lambda: str(tmp_path))

    def main(argv):
        raise argv[0]

    for error in (RequestError(KEY), WorkError(KEY), OSError(KEY), KeyError(KEY)):
        assert errors.command(main)([error]) in (1, 2)
        assert KEY not in capsys.readouterr().err
    (log,) = tmp_path.iterdir()
    assert "Traceback" in log.read_text() and KEY not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/{key}/x", "http://127.0.0.1:9/x?other={key}", "htp:/{key}"])
def test_a_download_that_fails_shows_no_key_and_chains_nothing(tmp_path, monkeypatch, address):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    with pytest.raises((WorkError, RequestError)) as caught:
        fetch.download(address.format(key=WRITTEN[2]), tmp_path / "x")
    assert "k3y" not in str(caught.value) and caught.value.__suppress_context__
