"""Equal error rates that others published on VoxCeleb1's lists, for rows beside our own."""

import io

import pandas as pd

# Copied from the sources, nothing of it measured here. Parameters in millions; multiply-accumulates in 10^9, counted as
# the source counts them (wespeaker calls them flops); EER in percent on VoxCeleb1-O, -E and -H, cleaned lists as far as
# a source says which; empty where it has no figure.
_TABLE = """\
system | parameters | multiply-accumulates | training data | scoring | O | E | H | source
ResNet-34, AdaCos, spectrogram 512x300x3 | 22 | | VoxCeleb2 | cosine | | 4.41 | 7.72 | the original system
ResNet-18, AdaCos, spectrogram 512x300x3 | 12 | | VoxCeleb2 | cosine | | 5.50 | 8.65 | the original system
ResNet-50 | | | VoxCeleb2 | cosine | | 4.42 | 7.33 | Chung et al., Interspeech 2018
Thin ResNet-34, GhostVLAD | | | VoxCeleb2 | cosine | 3.24 | 3.13 | 5.06 | Xie et al., ICASSP 2019
ResNet-34, ArcFace, no augmentation | | | VoxCeleb2 | cosine | 1.54 | 1.47 | 2.65 | hyperion, its model card
ResNet-34 | 6.63 | 4.55 | VoxCeleb2 | cosine | 0.867 | 1.049 | 1.959 | wespeaker, voxceleb/v2
ResNet-34 | 6.63 | 4.55 | VoxCeleb2 | AS-norm | 0.787 | 0.964 | 1.726 | wespeaker, voxceleb/v2
ResNet-34 | 6.63 | 4.55 | VoxCeleb2 | AS-norm, QMF | 0.718 | 0.911 | 1.606 | wespeaker, voxceleb/v2
ResNet-34, large margin | 6.63 | 4.55 | VoxCeleb2 | cosine | 0.797 | 0.937 | 1.695 | wespeaker, voxceleb/v2
ResNet-34, large margin | 6.63 | 4.55 | VoxCeleb2 | AS-norm, QMF | 0.659 | 0.821 | 1.437 | wespeaker, voxceleb/v2
ECAPA-TDNN 1024 | | | VoxCeleb1, VoxCeleb2 | cosine | 0.80 | | | SpeechBrain, its model card
ECAPA-TDNN 512, large margin | 6.19 | 1.04 | VoxCeleb2 | cosine | 0.878 | 1.072 | 2.007 | wespeaker, voxceleb/v2
ECAPA-TDNN 512, large margin | 6.19 | 1.04 | VoxCeleb2 | AS-norm | 0.782 | 1.005 | 1.824 | wespeaker, voxceleb/v2
ECAPA-TDNN 1024, large margin | 14.65 | 2.65 | VoxCeleb2 | cosine | 0.798 | 0.993 | 1.883 | wespeaker, voxceleb/v2
ECAPA-TDNN 1024, large margin | 14.65 | 2.65 | VoxCeleb2 | AS-norm, QMF | 0.707 | 0.894 | 1.615 | wespeaker, voxceleb/v2
TitaNet-L | | | VoxCeleb1, VoxCeleb2, Fisher, Switchboard, LibriSpeech, SRE | cosine | 0.66 | | | NeMo, its model card
CAM++, large margin | 7.18 | 1.15 | VoxCeleb2 | cosine | 0.707 | 0.845 | 1.664 | wespeaker, voxceleb/v2
CAM++, large margin | 7.18 | 1.15 | VoxCeleb2 | AS-norm | 0.659 | 0.803 | 1.569 | wespeaker, voxceleb/v2
ERes2NetV2 | | | VoxCeleb2 | cosine | 0.61 | | | arXiv 2406.02167
ResNet-221, large margin | 23.79 | 21.29 | VoxCeleb2 | cosine | 0.580 | 0.729 | 1.351 | wespeaker, voxceleb/v2
ResNet-221, large margin | 23.79 | 21.29 | VoxCeleb2 | AS-norm | 0.505 | 0.676 | 1.213 | wespeaker, voxceleb/v2
ResNet-293, large margin | 28.62 | 28.10 | VoxCeleb2 | cosine | 0.532 | 0.707 | 1.311 | wespeaker, voxceleb/v2
ResNet-293, large margin | 28.62 | 28.10 | VoxCeleb2 | AS-norm, QMF | 0.425 | 0.641 | 1.146 | wespeaker, voxceleb/v2
ReDimNet2-B0 | 1.1 | 0.33 | VoxCeleb2 | cosine | 1.04 | 1.16 | 1.97 | arXiv 2603.11841
ReDimNet2-B1 | 2.1 | 0.56 | VoxCeleb2 | cosine | 0.78 | 0.96 | 1.72 | arXiv 2603.11841
ReDimNet2-B2 | 3.6 | 0.95 | VoxCeleb2 | cosine | 0.57 | 0.76 | 1.41 | arXiv 2603.11841
ReDimNet2-B3 | 4.1 | 2.70 | VoxCeleb2 | cosine | 0.42 | 0.66 | 1.22 | arXiv 2603.11841
ReDimNet2-B4 | 6.6 | 4.62 | VoxCeleb2 | cosine | 0.37 | 0.58 | 1.07 | arXiv 2603.11841
ReDimNet2-B5 | 8.9 | 9.62 | VoxCeleb2 | cosine | 0.33 | 0.56 | 1.07 | arXiv 2603.11841
ReDimNet2-B6 | 12.3 | 13.05 | VoxCeleb2 | cosine | 0.29 | 0.52 | 0.99 | arXiv 2603.11841
ReDimNet2-B6 | 12.3 | 13.05 | VoxBlink2, VoxCeleb2 | cosine | 0.23 | 0.35 | 0.67 | arXiv 2603.11841
SimAM-ResNet-34 | 25.2 | | VoxBlink2, VoxCeleb2 | cosine | 0.415 | 0.615 | 1.121 | wespeaker, voxceleb/v2
SimAM-ResNet-34 | 25.2 | | VoxBlink2, VoxCeleb2 | AS-norm, QMF | 0.372 | 0.559 | 0.997 | wespeaker, voxceleb/v2
SimAM-ResNet-100 | 50.2 | | VoxBlink2, VoxCeleb2 | cosine | 0.229 | 0.458 | 0.868 | wespeaker, voxceleb/v2
SimAM-ResNet-100 | 50.2 | | VoxBlink2, VoxCeleb2 | AS-norm, QMF | 0.202 | 0.421 | 0.795 | wespeaker, voxceleb/v2
w2v-BERT 2.0 (self-supervised) | 586 | | VoxCeleb2, VoxBlink2 | AS-norm, QMF | 0.12 | 0.27 | 0.55 | arXiv 2510.04213
"""


def table() -> pd.DataFrame:
    """
    Published systems, a row each.

    Returns
    -------
    pd.DataFrame
        ``system, parameters`` [million], ``multiply-accumulates`` [10^9], ``training data, scoring, O, E, H`` [%] and
        ``source``; NaN where not published.

    Examples
    --------
    >>> table().loc[0, ["E", "H"]].tolist()
    [4.41, 7.72]
    """
    return pd.read_csv(io.StringIO(_TABLE), sep=r"\s*\|\s*", engine="python")
