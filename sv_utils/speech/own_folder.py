"""
Speech of the user's own, as it lies in a folder: what is there, who speaks, and whether table and list fit to it.

Whatever is wrong is said here, at the first stage, and not after hours of decoding or training.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sv_utils.base import lists, paths
from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.base.text import plain, quoted
from sv_utils.corpora import Corpus, Text, Utterance
from sv_utils.speech import archives, layouts, trees
from sv_utils.speech.archives import VerifiedArchive


def fetch(corpus: Corpus, folder: Path) -> list[VerifiedArchive]:
    """
    Understand a user's folder and say how, check its speaker table and trial list.

    Parameters
    ----------
    corpus : Corpus
        One without published archives.
    folder : Path

    Returns
    -------
    list of VerifiedArchive
        A tree each; nothing is copied.

    Raises
    ------
    RequestError
        There is no audio, no folder says who speaks, or table or list do not fit.
    """
    found = trees.walk(folder, {text.file for text in corpus.texts})
    left_out = f"; left out: {found.told()}" if found.left_out else ""
    if not found.files:
        raise RequestError(f"{folder} holds no audio file{left_out}: {corpus.manual}.")
    table = corpus.speakers()
    layout = layouts.understand(folder, list(found.files), set(table.index))
    verified = [_tree(folder, tree) for tree in layout]
    utterances = {tree.folder: dict(_utterances(corpus, archive)) for tree, archive in zip(layout, verified)}
    spoken = {one.speaker for own in utterances.values() for one in own.values()}
    if len(spoken) < 2:
        raise RequestError(
            f"{folder} holds one speaker only, {printable(next(iter(spoken), 'none'))}, if each of its folders is one: "
            f"{corpus.manual}."
        )
    print(f"{corpus.name}: {len(found.files)} audio file(s) in {len(spoken)} speakers' folders{left_out}")
    for line in layouts.told(layout, {name: list(own.values()) for name, own in utterances.items()}):
        print(f"{corpus.name}: {line}")
    by_name = {f"{name}/{file}".lstrip("/"): one.id for name, own in utterances.items() for file, one in own.items()}
    if doubled := sorted(by_name.keys() - found.files.keys()):
        raise RequestError(
            f"{folder}/{printable(doubled[0])} is reached by a link from one part of the folder into another "
            f"({len(doubled)} such file(s)): remove the link, for whoever is judged must not be trained on."
        )
    if strays := sorted(found.files.keys() - by_name.keys()):
        print(f"{corpus.name}: {len(strays)} file(s) in no speaker's folder, first {printable(strays[0])}")
    _name_lookalikes(corpus, found)
    _compare_table(corpus, spoken, set(table.index), "subset" in table)
    for text in corpus.lists.values():
        if corpus.text_path(text).exists():
            _settle(corpus, text, folder, by_name)
    return verified


def _tree(folder: Path, tree: layouts.Tree) -> VerifiedArchive:
    return archives.tree(folder / tree.folder, tree.subset, tree.folder or folder.name, tree.session)


def _utterances(corpus: Corpus, archive: VerifiedArchive) -> Iterator[tuple[str, Utterance]]:
    for member in archives.members(archive, corpus.naming):
        if member.utterance:
            yield member.name, member.utterance


def _name_lookalikes(corpus: Corpus, found: trees.Found) -> None:
    """Say which files are not read, though they look as if they were meant to be table or list."""
    expected = {Path(text.file).stem: text.file for text in corpus.texts}
    for name in found.left_out.get(trees.SUFFIX, ()):
        file = expected.get(os.path.splitext(name)[0].lower())
        if file:
            print(f"{corpus.name}: {printable(name)} is not read; save it as {file} if it is meant")


def _compare_table(corpus: Corpus, spoken: set[str], known: set[str], splits: bool) -> None:
    """Say which speakers the table lacks; refuse one that knows nobody."""
    if corpus.table is None or not known:
        return
    file, missing = corpus.table.file, sorted(spoken - known)
    if len(missing) == len(spoken):
        raise RequestError(
            f"{file} names none of the speakers: it has {printable(min(known))}, the folders are called "
            f"{printable(missing[0])}; write the folders' names into its first column."
        )
    if missing:
        what = "and are left out, because it says who is in which half" if splits else "which says no more of them"
        print(
            f"{corpus.name}: {len(missing)} of {len(spoken)} speakers, first {printable(missing[0])}, are not in {file}"
            f" {what}"
        )


def _settle(corpus: Corpus, text: Text, folder: Path, by_name: Mapping[str, str]) -> None:
    """
    Write a user's trial list anew, as every reader here expects it.

    Names may be ids, or names of files below the folder, with or without their suffix.
    """
    source, path = folder / text.file, corpus.text_path(text)
    found = _read(source, path)
    known, rows = _spellings(by_name), []
    for line, label, *pair in zip(found.lines, found.labels or (), found.enrol, found.test):
        ids = [_id(name, folder, known) for name in pair]
        if None in ids:
            example = quoted(next(iter(by_name.values())))
            raise RequestError(
                f"{source} line {line} names {printable(pair[ids.index(None)])}, which is none of the {len(by_name)} "
                f"recordings in {folder}; they are called like {example}."
            )
        rows.append(" ".join([str(label), *(quoted(identity) for identity in ids if identity)]))
    with paths.replace_on_success(path) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _read(source: Path, path: Path) -> lists.TrialList:
    """Read the copy of a list; refuse one that nothing can be judged by."""
    try:
        found = lists.read_trials(path)
    except RequestError as error:
        raise RequestError(str(error).replace(str(path), str(source))) from None
    if found.labels is None:
        raise RequestError(f"{source} has no labels; begin each line with 1 (same speaker) or 0.")
    if len(set(found.labels)) < 2:
        only = "targets (1)" if found.labels[0] else "non-targets (0)"
        raise RequestError(f"{source} holds {only} alone; an error rate needs trials of both kinds.")
    return found


def _spellings(by_name: Mapping[str, str]) -> dict[str, str | None]:
    """Id of each recording by all that a list may call it; None where two are called so."""
    known: dict[str, str | None] = {}
    for name, identity in by_name.items():
        for called in {plain(name), os.path.splitext(plain(name))[0], os.path.splitext(identity)[0]}:
            known[called] = identity if known.get(called, identity) == identity else None
    return known | {identity: identity for identity in by_name.values()}


def _id(name: str, folder: Path, known: Mapping[str, str | None]) -> str | None:
    """Id that a name in a list means; None for none."""
    name = plain(name)
    if name not in known:
        name = os.path.normpath(name.replace("\\", "/"))
        name = os.path.relpath(name, folder) if os.path.isabs(name) else name
    return known.get(name)


def digest(corpus: Corpus, folder: Path) -> str:
    """Digest of names, sizes and times of all that `fetch` reads in a folder [hex]."""
    found = hashlib.sha256()
    files = dict(trees.walk(folder).files)
    for text in corpus.texts:
        try:
            status = os.stat(folder / text.file)
            files[f"/{text.file}"] = status.st_size, status.st_mtime_ns
        except OSError:
            continue
    for line in trees.lines(files):
        found.update(line)
    return found.hexdigest()


def has_changed(folder: Path, md5: str, found: Sequence[VerifiedArchive]) -> bool:
    """Whether a recorded tree is another now."""
    (archive,) = (one for one in found if one.files[0]["path"] == str(folder) and one.md5 == md5)
    return archives.tree(folder, archive.subset, archive.name, archive.session).md5 != md5
