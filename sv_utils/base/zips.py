"""Zips that come from others: what they would become is summed up before anything is unpacked."""

import io
import os
import zipfile

from sv_utils.base.errors import RequestError
from sv_utils.base.text import refuse_special

MOST_AT_ONCE = 1 << 25  # of a zip's directory: 300,000 files [bytes]
HARMLESS = 1 << 28  # that any archive may unpack to [bytes]
RATIO = 100  # between the bytes of an archive and what it unpacks to, beyond that; speech and weights stay below 10


def bomb(packed: int, unpacked: int, length: int) -> str:
    """
    Say why the members of an archive cannot be what they announce; '' where they can.

    Parameters
    ----------
    packed, unpacked : int
        Sums over the members [bytes].
    length : int
        Of the archive itself [bytes].

    Examples
    --------
    >>> bomb(900, 1 << 40, 1000)
    'its files would take 1,099,511,627,776 bytes, out of 1,000'
    """
    if packed > length:  # members that lie on each other: each is unpacked, all are stored once
        return f"its files claim {packed:,} bytes of an archive that has {length:,}"
    if unpacked > HARMLESS + RATIO * length:
        return f"its files would take {unpacked:,} bytes, out of {length:,}"
    return ""


class _Sparing(io.BufferedReader):
    """A file that `zipfile` cannot read at once: a sparse one may claim gigabytes of directory."""

    def read(self, size: int | None = -1) -> bytes:
        wanted = size if size is not None and size >= 0 else os.fstat(self.fileno()).st_size - self.tell()
        if wanted > MOST_AT_ONCE:
            raise zipfile.BadZipFile(f"a directory of {wanted:,} bytes")
        return super().read(size)


def refuse_bomb(path: str | os.PathLike) -> None:
    """
    Refuse a zip, such as a ``.keras`` or ``.npz`` file, whose members or directory would fill the memory.

    What is no zip is not refused here; whoever reads it says so.

    Raises
    ------
    RequestError
        See `bomb`; or it is a pipe or device.
    """
    refuse_special(path)
    if not os.path.isfile(path):
        return
    with _Sparing(io.FileIO(path)) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, OverflowError, NotImplementedError) as error:
            if "directory of" in str(error):
                raise RequestError(f"{path} is an archive bomb ({error}); do not trust it.") from None
            return
        packed, unpacked = sum(member.compress_size for member in members), sum(m.file_size for m in members)
        if reason := bomb(packed, unpacked, os.fstat(file.fileno()).st_size):
            raise RequestError(f"{path} is an archive bomb ({reason}); do not trust it.")
