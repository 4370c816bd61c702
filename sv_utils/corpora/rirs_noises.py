"""
rirs_noises: 60,000 simulated and a few hundred real room impulse responses, with noises, to be heard through.

What stands for the speaker is the kind: ``smallroom``, ``mediumroom`` and ``largeroom`` (simulated, the session is the
room), ``real_rirs``, ``isotropic_noises`` and ``pointsource_noises``. Impulse responses are short: they have
limits of their own (``augmentation_limits`` of ``02_prep``).
"""

from pathlib import PurePosixPath

from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive, Corpus, Utterance, unsafe

FOLDERS = ("simulated_rirs", "real_rirs_isotropic_noises", "pointsource_noises")


def naming(name: str) -> Utterance:
    """
    Read a name of the archive.

    Examples
    --------
    >>> naming("RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav").id
    'smallroom/Room001/Room001-00001.wav'
    >>> naming("RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav").id
    'isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav'
    """
    pieces = PurePosixPath(name).parts
    folder = next((place for place, piece in enumerate(pieces) if piece in FOLDERS), len(pieces))
    kind, inner = pieces[folder : folder + 1], pieces[folder + 1 :]
    if unsafe(name) or len(inner) != (3 if kind == ("simulated_rirs",) else 1):
        raise RequestError(unsafe(name) or "name is not that of an impulse response or noise")
    if kind == ("simulated_rirs",):
        return Utterance(*inner)
    if kind == ("pointsource_noises",):
        return Utterance("pointsource_noises", "", inner[0])
    return Utterance("isotropic_noises" if "_noise_" in inner[0] else "real_rirs", "", inner[0])


CORPUS = Corpus(
    name="rirs_noises",
    remotes=(
        Archive(
            name="rirs_noises.zip",
            subset="dev",
            parts=(("rirs_noises.zip", "e6f48e257286e05de56413b4779d8ffb"),),
            gigabytes=1.3,
            hours=25,
        ),
    ),
    routes=("https://www.openslr.org/resources/28/{file}", "https://openslr.elda.org/resources/28/{file}"),
    naming=naming,
    first_channel=True,
    licence="Apache 2.0.",
    citation="T. Ko, V. Peddinti, D. Povey, M. Seltzer, S. Khudanpur, A study on data augmentation of reverberant "
    "speech for robust speech recognition, ICASSP 2017.",
    manual="fetch rirs_noises.zip from https://www.openslr.org/28, place it (or its unpacked folder) in a folder "
    "named rirs_noises and name the folder above it in SV_MIRROR",
)
