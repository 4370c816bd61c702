"""
folder: speech of your own, any tree of ``speaker/file`` or ``speaker/session/file`` in any audio format.

Subfolders ``dev/`` and ``test/`` split it into speakers to train on and speakers to judge by; without them all of it
is 'dev'. ``speakers.csv`` (``id,gender,...``) and ``trials.txt`` (``label enrol test``) beside them are used where
they exist. Files are read in place.
"""

from sv_utils.corpora import Corpus, Text

CORPUS = Corpus(
    name="folder",
    remotes=(),
    table=Text("speakers.csv", rows=None),
    lists={"folder": Text("trials.txt", rows=None)},
    licence="Yours.",
    citation="Yours.",
    manual="name the folder that holds <speaker>/<file> or <speaker>/<session>/<file> as the source, or name it folder "
    "and the folder above it in SV_MIRROR",
)
