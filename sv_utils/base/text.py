"""Text that users write and names that they give: read as it was saved, spelled one way, quoted where need be."""

import os
import re
import stat
import unicodedata
from pathlib import Path

from sv_utils.base.errors import RequestError

LARGEST = 1 << 28  # of a list or table [bytes]
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
HANDED_OVER = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # pipes that a shell has already opened for us
BINARY = re.compile(r"[\0-\x08\x0e-\x1f]")
WORD = re.compile(r'"((?:[^"]|"")*)"(?![^ \t])|([^ \t]+)')


def plain(name: str) -> str:
    """
    Give one spelling to a file's name: composed characters (NFC), and Windows' encoding where it is not UTF-8.

    Examples
    --------
    >>> plain("Jose" + chr(0x301)) == "Jos" + chr(0xE9)
    True
    """
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, as Python hands them through
        name = _legacy(name.encode(errors="surrogateescape"))
    return unicodedata.normalize("NFC", name)


def refuse_special(path: str | os.PathLike) -> None:
    """
    Refuse a named pipe, socket or device in the place of a file: opening one may wait for ever.

    What does not exist is not refused here; whoever opens it says so.

    Raises
    ------
    RequestError
        It is none of a file, a folder, and a pipe that a shell handed over (``<(…)``).
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or str(path).startswith(HANDED_OVER)):
        raise RequestError(f"{path} is a pipe or a device; write what it gives into a file, and name that.")


def read_text(path: str | os.PathLike) -> str:
    """
    Read a list or table, in the encoding that its first bytes tell: UTF-8, UTF-16, else Windows' Latin.

    Returns
    -------
    str
        Without a byte-order mark, lines ending in a newline alone.

    Raises
    ------
    RequestError
        The file is absent, no file, larger than `LARGEST`, or no text.
    """
    refuse_special(path)
    try:
        if os.stat(path).st_size > LARGEST:
            raise RequestError(f"{path} has more than {LARGEST:,} bytes, which no list has; name another file.")
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RequestError(f"{path} is no file; give the path of a text file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{path} cannot be read ({reason}); give the path of a text file.") from None
    try:
        text = _decoded(data).rstrip("\x1a")  # which old systems end a file with
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a text file in UTF-8; save it as one.") from None
    if BINARY.search(text):
        raise RequestError(f"{path} is not a text file; give one.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    if data[1::2].count(0) > len(data) // 4:  # UTF-16 without its mark: every other byte of Latin text is 0
        return data.decode("utf-16-le")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _legacy(data)


def _legacy(data: bytes) -> str:
    """Decode what Windows or an old system wrote; Latin-1 knows the five bytes that Windows' Latin lacks."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def words(line: str) -> list[str]:
    """
    Split a line at blanks; what stands in double quotes is one word, in which two quotes are one.

    Examples
    --------
    >>> words('1 "ann lee/1/a.wav" ben/b.wav')
    ['1', 'ann lee/1/a.wav', 'ben/b.wav']
    """
    if '"' not in line and line.isascii():
        return line.split()
    return [match[2] if match[1] is None else match[1].replace('""', '"') for match in WORD.finditer(line.strip())]


def quoted(word: str) -> str:
    """
    Write a word so that `words` gives it back.

    Examples
    --------
    >>> quoted("ann lee/1/a.wav"), quoted("ben/b.wav")
    ('"ann lee/1/a.wav"', 'ben/b.wav')
    """
    if word and not word.startswith('"') and not any(sign.isspace() for sign in word):
        return word
    return '"{}"'.format(word.replace('"', '""'))
