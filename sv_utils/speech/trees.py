"""
Folders of recordings as their owners keep them: walked through once, links and foreign things included.

A link is followed where the user put it, also out of the tree; each folder is read once, whatever leads to it. What a
computer, a notebook or a file system left between the recordings is no recording; it is counted.
"""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sv_utils import corpora
from sv_utils.base.terminal import printable

FOREIGN = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
HIDDEN, SUFFIX = "hidden or foreign", "of no audio format by their suffix"
DANGLING, SPECIAL, AGAIN = "link(s) to nothing", "pipe(s), socket(s) or device(s)", "link(s) to folders read already"
CLOSED = "folder(s) that cannot be opened"


@dataclass
class Found:
    """
    What lies below a folder.

    Attributes
    ----------
    files : dict of str to (int, int)
        Audio files by name below the folder, with their sizes [bytes] and modification times [ns].
    left_out : dict of str to list of str
        Other things by their kind, as names below the folder.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def omit(self, kind: str, name: str) -> None:
        """Note a thing that is no recording."""
        self.left_out.setdefault(kind, []).append(name)

    def told(self) -> str:
        """Say what was left out, in words; '' where nothing was."""
        return ", ".join(f"{len(names)} {kind} (first {printable(names[0])})" for kind, names in self.left_out.items())


def is_hidden(name: str) -> bool:
    """
    Whether a file, or a folder above it, is none of the user's: hidden, of a waste basket, of an archiver.

    Examples
    --------
    >>> is_hidden("anna/.ipynb_checkpoints/a.wav"), is_hidden("./anna/a.wav")
    (True, False)
    """
    return any(part in FOREIGN or (part.startswith(".") and part not in (".", "..")) for part in name.split("/"))


def is_audio(name: str) -> bool:
    """Whether a name ends as those of audio files do."""
    return os.path.splitext(name)[1].lower() in corpora.SUFFIXES


def walk(folder: str | os.PathLike, known: Collection[str] = ()) -> Found:
    """
    Go through a tree of the user's.

    Folders come before links to folders, so that a folder with two names has its own.

    Parameters
    ----------
    folder : path
    known : collection of str
        Files below it that are neither recordings nor left out, such as its trial list.

    Returns
    -------
    Found
        With names in their order.
    """
    found, waiting = Found(), [""]
    links: list[str] = []
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        prefix = waiting.pop() if waiting else links.pop(0)
        try:
            here = os.stat(Path(folder, prefix))
            entries = sorted(os.scandir(Path(folder, prefix)), key=lambda entry: entry.name)
        except OSError:
            found.omit(CLOSED, prefix)
            continue
        if (here.st_dev, here.st_ino) in seen:
            found.omit(AGAIN, prefix.rstrip("/"))
            continue
        seen.add((here.st_dev, here.st_ino))
        for entry in entries:
            if f"{prefix}{entry.name}" not in known:
                _sort(entry, f"{prefix}{entry.name}", found, waiting, links)
        links.sort()
    found.files = dict(sorted(found.files.items()))
    return found


def _sort(entry: os.DirEntry, name: str, found: Found, waiting: list[str], links: list[str]) -> None:
    """Put one entry of a folder where it belongs."""
    if is_hidden(entry.name):
        found.omit(HIDDEN, name)
    elif entry.is_dir(follow_symlinks=False):
        waiting.append(f"{name}/")
    elif entry.is_symlink() or is_audio(name):
        try:
            status = entry.stat()
        except OSError:  # nothing there, or a circle of links
            found.omit(DANGLING, name)
            return
        if stat.S_ISDIR(status.st_mode):
            links.append(f"{name}/")
        elif not stat.S_ISREG(status.st_mode):
            found.omit(SPECIAL, name)
        elif is_audio(name):
            found.files[name] = status.st_size, status.st_mtime_ns
        else:
            found.omit(SUFFIX, name)
    else:
        found.omit(SUFFIX, name)


def lines(files: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    """Names, sizes and times of files, for a digest of a tree that opens none of them."""
    for name, (size, time) in files.items():
        yield f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape")
