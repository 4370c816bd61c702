"""
folder: speech of your own, any tree of ``speaker/file`` or ``speaker/session/file`` in any audio format.

Whatever lies between the speaker's folder and the file is the session (``speaker/2024/05/file``). Common layouts are
recognised (`sv_utils.speech.layouts`): folders ``train``, ``dev``, ``valid`` and ``test`` split the speakers into those
to train on and those to judge by. Without them ``speakers.csv`` (``id,gender,set,...``) does where it has a column
``set``, and where it has not, ``02_prep`` draws the test speakers. Trials come from ``trials.txt``
(``label enrol test``); where there is none, ``02_prep`` draws them too. Files are read in place.
"""

from pathlib import PurePosixPath

from sv_utils.base.errors import RequestError
from sv_utils.base.text import plain
from sv_utils.corpora import Corpus, Text, Utterance, unsafe


def naming(name: str) -> Utterance:
    """
    Read ``speaker/file``, or ``speaker/session/file`` with a session of any depth; names in one spelling.

    Examples
    --------
    >>> naming("anna/2024/05/1.wav").session
    '2024/05'
    """
    name = plain(name)
    pieces = PurePosixPath(name).parts
    reason = unsafe(name)
    if reason or len(pieces) < 2:
        raise RequestError(reason or "no folder above the file says who speaks")
    return Utterance(pieces[0], "/".join(pieces[1:-1]), pieces[-1])


CORPUS = Corpus(
    name="folder",
    remotes=(),
    table=Text("speakers.csv", rows=None),
    lists={"folder": Text("trials.txt", rows=None)},
    naming=naming,
    licence="Yours.",
    citation="Yours.",
    manual="name the folder that holds <speaker>/<file> or <speaker>/<session>/<file> as the source, or name it folder "
    "and the folder above it in SV_MIRROR",
)
