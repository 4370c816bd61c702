"""
folder: speech of your own, any tree of ``speaker/file`` or ``speaker/session/file`` in any audio format.

Subfolders ``dev/`` and ``test/`` split it into speakers to train on and speakers to judge by. Without them
``speakers.csv`` (``id,gender,set,...``) does where it has a column ``set``, and where it has not, ``02_prep`` draws the
test speakers. Trials come from ``trials.txt`` (``label enrol test``); where there is none, ``02_prep`` draws them too.
Files are read in place.
"""

from sv_utils.base.errors import RequestError
from sv_utils.corpora import Corpus, Text, Utterance, parse


def naming(name: str) -> Utterance:
    """Read ``speaker/file`` or ``speaker/session/file``; nothing deeper says who speaks."""
    if name.count("/") not in (1, 2):
        raise RequestError("name is not <speaker>/<session>/<file> or <speaker>/<file>")
    return parse(name)


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
