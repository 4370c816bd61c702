"""The personal key: whatever is stored or printed shows dots in its place."""

import json
import os
from urllib.parse import quote, quote_plus

SHORTEST = 4  # what is shorter is no key, and might stand in any word
DOTS = "..."
_given: set[str] = set()


def keep(value: str | None) -> None:
    """Take note of a key that was given to a command, beside that of ``$SV_VOXCELEB_KEY``."""
    if value:
        _given.add(value)


def scrubbed(text: str) -> str:
    """
    Put dots in the place of every personal key, however it is written: plain, in an address, in JSON.

    Examples
    --------
    >>> keep("a5b6 c7")
    >>> scrubbed("https://host/a5b6%20c7/file?key=a5b6+c7: refused")
    'https://host/.../file?key=...: refused'
    """
    for value in sorted({*_given, os.environ.get("SV_VOXCELEB_KEY", "")}, key=len, reverse=True):
        if len(value) >= SHORTEST:
            written = {value, quote(value), quote(value, safe=""), quote_plus(value)}
            written |= {json.dumps(form, ensure_ascii=plain)[1:-1] for form in written for plain in (False, True)}
            for form in sorted(written, key=len, reverse=True):
                text = text.replace(form, DOTS)
    return text
