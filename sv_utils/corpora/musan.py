"""
musan: 109 hours of music, speech and noise, to be mixed into speech.

What stands for the speaker is the kind (``music``, ``noise``, ``speech``), for the session where it comes from
(``free-sound``, ``librivox``, ...): ``noise/free-sound/noise-free-sound-0000.wav``.
"""

from sv_utils.corpora import Archive, Corpus

CORPUS = Corpus(
    name="musan",
    remotes=(
        Archive(
            name="musan.tar.gz",
            subset="dev",
            parts=(("musan.tar.gz", "0c472d4fc0c5141eca47ad1ffeb2a7df"),),
            utterances=2016,
            speakers=3,
            gigabytes=11.1,
            hours=109,
        ),
    ),
    routes=("https://www.openslr.org/resources/17/{file}", "https://openslr.elda.org/resources/17/{file}"),
    licence="CC BY 4.0; each recording is in the public domain or under a Creative Commons licence.",
    citation="D. Snyder, G. Chen, D. Povey, MUSAN: A Music, Speech, and Noise Corpus, arXiv 1510.08484, 2015.",
    manual="fetch musan.tar.gz from https://www.openslr.org/17, place it (or its unpacked folder) in a folder named "
    "musan and name the folder above it in SV_MIRROR",
)
