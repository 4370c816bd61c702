"""
How a user's folder is laid out: which folders split it, which one is the speaker's, what is only above it.

Recognised are ``speaker/file``, ``speaker/session/file`` and ``speaker/…/file``; below ``train``, ``dev``, ``valid``,
``test`` (in any case, also ``train-clean-100``); below folders that hold everything (``LibriSpeech``, ``wav``,
``audio``); and below groups (TIMIT's ``DR1``, ``female`` and ``male``). A speaker table decides where the names of the
speakers stand, if one is there (``phone/anna/file``).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.base.text import plain

SPLITS = {"train": "train|training", "dev": "dev|devel|development", "valid": "valid|validation|val"}
SPLITS |= {"test": "test|testing|eval|evaluation"}
CONTAINERS = {"dev", "test", "wav", "wavs", "wav16", "wav48", "aac", "m4a", "flac", "mp3", "ogg", "audio", "audios"}
CONTAINERS |= {"speech", "sound", "sounds", "clips", "data", "files", "recordings", "samples", "segments", "voices"}
GROUP = re.compile(r"dr\d|female|male|women|men|woman|man|[fm]", re.IGNORECASE)


@dataclass(frozen=True)
class Tree:
    """
    A folder whose own folders are speakers.

    Attributes
    ----------
    folder : str
        Below the user's; '' for that itself.
    subset : {'dev', 'test', ''}
        Half that its speakers belong to; '' where a table or a draw says it.
    session : str
        What its sessions begin with, where its speakers are in other trees too.
    """

    folder: str
    subset: str
    session: str = ""


def understand(root: Path, names: Sequence[str], speakers: Collection[str] = ()) -> list[Tree]:
    """
    Find the trees of a user's folder.

    Parameters
    ----------
    root : Path
        The folder, for the sentences of errors.
    names : sequence of str
        Its audio files, below it.
    speakers : collection of str
        Names that the speaker table knows.

    Returns
    -------
    list of Tree
        In the order of their names; their files are all that lie in folders.

    Raises
    ------
    RequestError
        No folder says who speaks, folders of halves lie beside others, or a speaker is in both halves.
    """
    split = [(plain(name).split("/"), name.split("/")) for name in names if "/" in name]
    inside = [parts for parts, _ in split]
    above = _shared(inside, speakers)
    halves = _halves(root, inside, above)
    if not inside or halves is None:
        raise RequestError(
            f"{root} holds {len(names)} audio file(s) but no folders that say who speaks: put each speaker's files "
            "into a folder of that name."
        )
    depths = {half: _depth(half, inside, above, speakers) for half in halves or [""]}
    found: dict[str, Tree] = {}
    told: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for parts, own in split:
        half = parts[above] if halves and len(parts) > above else ""
        if half in depths and len(parts) > depths[half] + 1:  # others lie in no speaker's folder
            folder, subset = "/".join(own[: depths[half]]), halves.get(half, "")
            found[folder] = Tree(folder, subset)
            told[parts[depths[half]]].add((folder, subset))
    _refuse_both(root, told)
    shared = {folder for places in told.values() if len(places) > 1 for folder, _ in places}
    return [_with_session(tree, tree.folder in shared) for _, tree in sorted(found.items())]


def _shared(inside: list[list[str]], speakers: Collection[str]) -> int:
    """How many folders lie above everything: one speaker alone would be no corpus."""
    above = 0
    while 2 * sum(len(parts) > above + 2 for parts in inside) > len(inside):
        names = {parts[above] for parts in inside if len(parts) > above + 1}
        if len(names) > 1 or names & set(speakers):
            break
        above += 1
    return above


def _kind(name: str) -> str:
    """Which part of a split corpus a folder's name means, ``train-clean-100`` included; '' for none."""
    return next((kind for kind, words in SPLITS.items() if re.fullmatch(rf"({words})([-_. ].*)?", name.lower())), "")


def _halves(root: Path, inside: list[list[str]], above: int) -> dict[str, str] | None:
    """Half of each folder that splits the corpus; nothing where none does, None where these hold no other folders."""
    tops = {parts[above] for parts in inside if len(parts) > above + 1}
    kinds = {name: kind for name in tops if (kind := _kind(name))}
    deep = {parts[above] for parts in inside if len(parts) > above + 2} & kinds.keys()
    if kinds.keys() == tops and len(set(kinds.values())) > 1:
        judged = next(kind for kind in ("test", "valid", "dev") if kind in kinds.values())
        return {name: "test" if kind == judged else "dev" for name, kind in kinds.items()} if deep else None
    exact = sorted(name for name in deep if re.fullmatch(SPLITS[kinds[name]], name.lower()))
    others = sorted(tops - kinds.keys())
    if exact and others:
        raise RequestError(
            f"{root} has {printable(exact[0])}/, which splits speakers, beside {len(others)} other folder(s) with "
            f"audio, first {printable(others[0])}/: put all speakers into such folders (train/, test/), or none."
        )
    return {}


def _depth(half: str, inside: list[list[str]], above: int, speakers: Collection[str]) -> int:
    """At which place of the names below a half the speaker stands."""
    start = above + bool(half)
    own = [parts for parts in inside if len(parts) > start + 1 and (not half or parts[above] == half)]
    usual, deepest = start, min(map(len, own), default=0) - 2
    while usual < deepest and len({p[usual] for p in own}) == 1 and own[0][usual].lower() in CONTAINERS:
        usual += 1
    if usual < deepest and all(GROUP.fullmatch(parts[usual]) for parts in own):
        usual += 1
    places = range(max(map(len, own), default=2) - 1)
    known = [sum(place < len(parts) - 1 and parts[place] in speakers for parts in own) for place in places]
    return max(places, key=lambda place: (known[place], place == usual, -place))


def _refuse_both(root: Path, told: dict[str, set[tuple[str, str]]]) -> None:
    both = sorted(speaker for speaker, places in told.items() if len({subset for _, subset in places}) > 1)
    if both:
        one, other = sorted(folder for folder, _ in told[both[0]])[:2]
        raise RequestError(
            f"{root} has {len(both)} of {len(told)} speakers in both halves, first {printable(both[0])} in "
            f"{printable(one)}/ and {printable(other)}/: whoever is judged must not be trained on; put all speakers "
            "into one folder (their halves are drawn then), or each into one half."
        )


def _with_session(tree: Tree, is_shared: bool) -> Tree:
    return Tree(tree.folder, tree.subset, plain(tree.folder)) if is_shared and tree.folder else tree


def told(trees: Sequence[Tree], utterances: dict[str, list]) -> list[str]:
    """
    Say what was understood, a line a tree, with its first three speakers.

    Parameters
    ----------
    trees : sequence of Tree
    utterances : dict of str to list of Utterance
        Those of each tree, by its folder.
    """
    halves = {"dev": "to train on", "test": "to judge by", "": "split by table or draw"}
    lines = []
    for tree in trees:
        speakers = Counter(one.speaker for one in utterances[tree.folder])
        sessions = {(one.speaker, one.session) for one in utterances[tree.folder]}
        first = []
        for speaker in sorted(speakers)[:3]:
            own = sum(name == speaker for name, _ in sessions)
            first.append(f"{printable(speaker)} ({own} session(s), {speakers[speaker]} file(s))")
        lines.append(
            f"{printable(tree.folder) or 'the folder itself'}: {len(speakers)} speaker(s) {halves[tree.subset]}, "
            f"{len(sessions)} session(s), {speakers.total()} file(s): {', '.join(first)}"
            + (", …" if len(speakers) > 3 else "")
        )
    return lines
