"""
What can be known of a corpus before the first of its files is decoded: said in minutes, and not after days.

The speaker table and the lists, whether every file that a list names is in an archive's index, whether the counts are
the official ones, whether some files of each archive decode, and whether the disk will hold the store.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.corpora import Corpus
from sv_utils.speech import archives, audio, manifest, needs, splits
from sv_utils.speech.archives import Member, VerifiedArchive
from sv_utils.speech.reader import SAMPLE_RATE

PROBES = 8  # files of each archive that are decoded


@dataclass
class Findings:
    """
    What is known of a corpus before it is decoded.

    Attributes
    ----------
    told : list of str
        Sentences, good and bad.
    failed : dict
        Files that cannot be decoded, of those that were tried: reason by id.
    hours, store : float
        Sound in the archives, and what it takes in a store [bytes], by those that were decoded.
    """

    told: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    hours: float = 0.0
    store: float = 0.0


def inspect(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    lists: Sequence[str] = (),
    *,
    missing_trials: str = "stop",
    allow_incomplete: bool = False,
    encoding: str = "pcm",
) -> Findings:
    """
    Check a corpus that was fetched, before anything of it is decoded.

    Parameters
    ----------
    corpus : Corpus
    verified : sequence of VerifiedArchive
        From `acquisition.fetch`.
    lists : sequence of str
        Names of its trial lists that will be used.
    missing_trials : {'stop', 'drop'}
        Whether a file that a list names and that is not there is an error.
    allow_incomplete : bool
        Accept a tree that has not the official counts.
    encoding : {'pcm', 'flac'}
        Of the store, whose size is foreseen.

    Returns
    -------
    Findings

    Raises
    ------
    RequestError
        Table, lists, index or files are not what the corpus should have.
    """
    found, here = Findings(), [archive for archive in verified if not archive.removed]
    if not here:
        found.told.append("The archives were removed after the preparation; its store is used.")
        return found
    found.told += _texts(corpus, here, lists)
    wanted = splits.named(corpus, [name for name in lists if not corpus.is_drawn(name)])
    index = {archive.name: _Index(corpus, archive, wanted) for archive in here}
    found.told += _listed(corpus, wanted, list(index.values()), missing_trials)
    found.told += _counts(corpus, here, index, allow_incomplete)
    for archive in here:
        found.told += _probe(corpus, archive, index[archive.name].samples, found, encoding)
    if missing_trials == "stop" and (lost := sorted(wanted & found.failed.keys())):
        raise RequestError(
            f"{printable(lost[0])}, which a trial list names, cannot be decoded ({found.failed[lost[0]]}): fetch its "
            "archive again, or set missing_trials of 02_prep to drop, which goes on without its trials."
        )
    found.told.append(
        f"By these files, it is about {found.hours:,.2f} h of sound, or {needs.size(found.store)} in a store."
    )
    return found


class _Index:
    """Names in an archive, gone through once: counts, what lists name of it, and files to try."""

    def __init__(self, corpus: Corpus, archive: VerifiedArchive, wanted: Collection[str]):
        self.found: set[str] = set()
        self.refused: dict[str, str] = {}
        self.samples: list[Member] = []
        self.spoken: Counter[str] = Counter()
        self.complete = not archive.name.endswith(archives.TARS)  # a tar is not listed without being unpacked
        self._step, root = 1, Path(archive.files[0]["path"]) if archive.is_tree else None
        for number, member in enumerate(archives.members(archive, corpus.naming)):
            closed = root and not member.refusal and not os.access(root / member.name, os.R_OK)
            self._note(member, "cannot be read: no right to" if closed else member.refusal, wanted)
            self._sample(number, member)
            if not self.complete and len(self.samples) == PROBES:
                break
        self.samples = self.samples[:: max(1, len(self.samples) // PROBES)][:PROBES]

    def _note(self, member: Member, refusal: str, wanted: Collection[str]) -> None:
        one = member.utterance
        if refusal:
            self.refused[one.id if one else member.name] = refusal
        if one:
            self.spoken[one.speaker] += 1
            if not refusal and one.id in wanted:
                self.found.add(one.id)

    def _sample(self, number: int, member: Member) -> None:
        """Keep a file every so many, however many there will be."""
        if number % self._step == 0 and not member.refusal:
            self.samples.append(member)
        if len(self.samples) > 2 * PROBES:
            self.samples, self._step = self.samples[::2], 2 * self._step


def _texts(corpus: Corpus, here: Sequence[VerifiedArchive], lists: Sequence[str]) -> Iterator[str]:
    """Read the table and the lists; say where a list is not the published one."""
    speakers = corpus.speakers()
    if len(speakers):
        yield f"The speaker table has {len(speakers):,} speakers ({', '.join(map(printable, speakers.columns))})."
        if corpus.table and corpus.table.rows and "subset" not in speakers and not all(one.subset for one in here):
            raise RequestError(
                f"{corpus.text_path(corpus.table)} has beside the speakers the columns "
                f"{', '.join(map(printable, speakers.columns))}, and not set, which says who is tested: remove it and "
                "fetch it again."
            )
    for name in lists:
        if corpus.is_drawn(name):
            yield f"List {name} will be drawn."
            continue
        trials, text, path = corpus.trials(name), corpus.lists[name], corpus.list_path(name)
        if trials["label"].nunique() < 2:
            raise RequestError(f"{path} holds trials of one kind alone; an error rate needs both: fetch it again.")
        yield f"List {name} has {len(trials):,} trials, {int(trials['label'].sum()):,} of them target trials."
        data = path.read_bytes().replace(b"\r\n", b"\n").removeprefix(b"\xef\xbb\xbf")
        if text.md5 and text.md5 not in (hashlib.md5(data + end).hexdigest() for end in (b"", b"\n")):
            yield f"{path} is not the published list {name} (another md5): its figures cannot be compared with others'."


def _counts(
    corpus: Corpus, here: Sequence[VerifiedArchive], index: Mapping[str, _Index], allow_incomplete: bool
) -> Iterator[str]:
    """Compare speakers and utterances with the official counts where no checksum has done so."""
    known, rows = corpus.speakers(), []
    for archive in (one for one in here if index[one.name].complete):
        spoken, refused = index[archive.name].spoken, index[archive.name].refused
        yield f"{archive.name} holds {spoken.total():,} files of {len(spoken):,} speakers."
        for name, reason in list(refused.items())[:1]:
            yield f"{len(refused):,} file(s) of {archive.name} cannot be used, first {printable(name)} ({reason})."
        halves = known["subset"] if not archive.subset and "subset" in known else {}
        rows += [(archive.subset or halves.get(name, ""), name, count) for name, count in spoken.items()]
    table = pd.DataFrame(rows, columns=["subset", "speaker", "count"])
    strange = sorted(set(table["speaker"]) - set(known.index)) if len(known) else []
    if strange:
        yield f"{len(strange):,} speaker(s) are not in the speaker table, first {printable(strange[0])}."
    if not allow_incomplete and len(table) and all(one.complete for one in index.values()):
        each = table.loc[table.index.repeat(table["count"])].query("subset != ''")
        manifest.refuse_incomplete(corpus, here, each.assign(id="", error="", samples=0))


def _listed(corpus: Corpus, wanted: set[str], index: Sequence[_Index], missing_trials: str) -> Iterator[str]:
    """Look for every file that a list names in the indices."""
    if not wanted or not all(one.complete for one in index):
        return
    missing = sorted(wanted - set().union(*(one.found for one in index)))
    if not missing:
        yield f"All {len(wanted):,} files that the lists name are there."
        return
    reasons = {name: reason for one in index for name, reason in one.refused.items()}
    first = f"first {printable(missing[0])} ({reasons.get(missing[0], 'not in the archives')})"
    of = f"{len(missing):,} of the {len(wanted):,} files that trial lists of corpus {corpus.name} name are not there"
    if missing_trials == "stop":
        raise RequestError(
            f"{of}, {first}: complete the corpus, set missing_trials of 02_prep to drop, which leaves their trials "
            "out, or leave the list out."
        )
    yield f"{of}, {first}: their trials are left out."


def _probe(
    corpus: Corpus, archive: VerifiedArchive, members: Sequence[Member], found: Findings, encoding: str
) -> Iterator[str]:
    """Decode some files of an archive."""
    files = tuple((file["path"], file["mtime_ns"]) for file in archive.files)
    encode, failed, read, samples_read, written = manifest.ENCODINGS[encoding][0], {}, 0, 0, 0
    for member in members:
        try:
            data = archives.read(files, member)
            samples = audio.decode(data, SAMPLE_RATE, first_channel=corpus.first_channel).samples
        except audio.AudioError as error:
            failed[member.utterance.id if member.utterance else member.name] = str(error)
            continue
        read, samples_read, written = read + len(data), samples_read + len(samples), written + len(encode(samples))
    found.failed |= failed
    first = next((f"{printable(name)} ({reason})" for name, reason in failed.items()), "")
    if failed and len(failed) == len(members):
        raise RequestError(
            f"none of {len(members)} files out of {archive.name} of corpus {corpus.name} can be decoded, first "
            f"{first}: fetch it again."
        )
    share = archive.bytes / max(1, read)
    found.hours += share * samples_read / SAMPLE_RATE / 3600
    found.store += share * written
    yield f"{len(members) - len(failed)} of {len(members)} files out of {archive.name} decode" + (
        f", not {first}." if failed else "."
    )


def refuse_unwritable(names: Sequence[str]) -> None:
    """
    Make sure that the folders of corpora can be written to.

    Raises
    ------
    RequestError
        One cannot.
    """
    for name in names:
        folder = paths.corpus_dir(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-") as file:
                file.write(bytes(4096))
        except OSError as error:
            raise RequestError(
                f"{folder} cannot be written to ({error.strerror}): correct its rights, or name another folder in "
                "SV_OUTPUTS."
            ) from None


def refuse_small_disk(chosen: Sequence[Corpus], source: str | None, encoding: str = "pcm") -> None:
    """
    Compare the disk with what is to be fetched and then stored, by what the corpora state, before a byte is fetched.

    Parameters
    ----------
    chosen : sequence of Corpus
    source : str, optional
        As in `acquisition.fetch`.
    encoding : {'pcm', 'flac'}

    Raises
    ------
    RequestError
        There is too little.
    """
    fetch, store = 0, 0.0
    for corpus in chosen:
        with contextlib.suppress(RequestError):  # `acquisition.fetch` tells what is wrong
            rows = [row for row in needs.archives_of(corpus, source, ask=False) if row["to_fetch"]]
            fetch += sum(row["to_fetch"] for row in rows)
            store += sum(row["hours"] for row in rows) * 3600 * needs.BYTES_A_SECOND[encoding]
    arrived = sum(path.stat().st_size for path in paths.outputs().glob("corpora/*/archives/*"))
    _refuse_full(max(0, fetch - arrived) + store, f"{needs.size(fetch)} of archives and", store, encoding)


def refuse_full(found: Mapping[str, Findings], encoding: str = "pcm") -> None:
    """
    Compare the disk with the stores that are still to be made.

    Parameters
    ----------
    found : mapping of str to Findings
        By corpus.
    encoding : {'pcm', 'flac'}

    Raises
    ------
    RequestError
        There is too little.
    """
    done = {name for name in found if any(paths.corpus_dir(name).glob("store-*/manifest.csv"))}
    store = sum(one.store for name, one in found.items() if name not in done)
    begun = (path for name in found.keys() - done for path in paths.corpus_dir(name).glob("store-*/shard-*"))
    _refuse_full(store - sum(path.stat().st_size for path in begun), "", store, encoding)


def _refuse_full(need: float, also: str, store: float, encoding: str) -> None:
    outputs = paths.outputs()
    folder = next(path for path in (outputs, *outputs.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if need > free:
        smaller = "" if encoding == "flac" else ", or set encoding of 02_prep to flac"
        raise RequestError(
            f"{also} about {needs.size(store)} of stores are needed, and {needs.size(free)} are free in {folder}: free "
            f"{needs.size(need - free)} more, name another folder in SV_OUTPUTS{smaller}.".strip()
        )
