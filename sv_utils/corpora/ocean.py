"""
ocean: 125 real speakers in VoxCeleb's shape.

The *train* half of speechocean762 (OpenSLR 101): non-native English read by Mandarin speakers, half of them children,
re-encoded and re-laid as VoxCeleb's release is. ``ocean_data/`` holds ids only, no audio.

The public archive is read as well: its recordings get the same ids, split and trials; what is not of this corpus (the
test half, and the recordings that were left out) is passed over. Its samples are those before the re-encoding.
"""

import re
from functools import cache
from pathlib import Path

import pandas as pd

from sv_utils.corpora import Archive, Corpus, Text, Utterance, parse

DATA = Path(__file__).parent / "ocean_data"


def naming(name: str) -> Utterance | None:
    """
    Read a name of either form.

    Examples
    --------
    >>> naming("speechocean762/WAVE/SPEAKER0001/000010011.WAV").id
    'oc00001/s1/00001.m4a'
    """
    public = re.search(r"(?:^|/)WAVE/SPEAKER\d+/(\d+)\.WAV$", name)
    path = _ids().get(public[1]) if public else name
    return parse(path) if path else None


@cache
def _ids() -> dict[str, str]:
    return pd.read_csv(DATA / "ocean_utterances.csv", dtype=str).set_index("source_utterance")["path"].to_dict()


CORPUS = Corpus(
    name="ocean",
    remotes=(
        Archive(
            name="ocean_dev_aac.zip",
            subset="dev",
            parts=(
                ("ocean_dev_aac_partaa", "8e5a37bdbbbc73c10101cae10d5a4c48"),
                ("ocean_dev_aac_partab", "154e42387a737b32d0b31181371daa88"),
                ("ocean_dev_aac_partac", "8ad07d853e6ee7c356de89247a62c0e6"),
            ),
            md5="c914c77f8510cabea23c6082b9cf5c26",
            utterances=1980,
            speakers=99,
            gigabytes=0.07,
            hours=2.2,
        ),
        Archive(
            name="ocean_test_wav.zip",
            subset="test",
            parts=(("ocean_test_wav.zip", "f104a1cf111c5053106f57e77febad60"),),
            utterances=520,
            speakers=26,
            gigabytes=0.06,
            hours=0.6,
        ),
    ),
    table=Text("ocean_meta.csv", rows=125, md5="88c2d310b9165d31d416e76c8a1b192d"),
    lists={"ocean": Text("ocean_trials.txt", rows=6240, md5="3f83cdcce10d7c13b7b134e57f72a0b4")},
    data=DATA,
    routes=("https://www.openslr.org/resources/101/{file}", "https://openslr.elda.org/resources/101/{file}"),
    public=(
        Archive(
            name="speechocean762.tar.gz",
            subset="",
            parts=(("speechocean762.tar.gz", None),),  # no checksum is published; the counts are checked
            utterances=2500,
            speakers=125,
            gigabytes=0.55,
            hours=2.8,
        ),
    ),
    naming=naming,
    licence="speechocean762 (OpenSLR 101): free for commercial and non-commercial purposes.",
    citation="J. Zhang et al., speechocean762: An Open-Source Non-native English Speech Corpus For Pronunciation "
    "Assessment, Interspeech 2021.",
    manual="place speechocean762.tar.gz of https://www.openslr.org/101, or ocean_dev_aac_partaa, -ab, -ac and "
    "ocean_test_wav.zip, in a folder named ocean and name the folder above it in SV_MIRROR",
    same_session=True,
    session_note="One session per speaker: a same-session EER, which flatters every system. It compares systems with "
    "each other and says nothing about VoxCeleb.",
)
