"""Equal error rates that others published on VoxCeleb1's lists, for rows beside our own."""

import io

import pandas as pd

# Copied from the sources, nothing of it measured here. Parameters in millions; EER in percent on VoxCeleb1-O, -E and
# -H, cleaned lists as far as a source says which; empty where it has no figure.
_TABLE = """\
system | parameters | training data | scoring | O | E | H | source
ResNet-34, AdaCos, spectrogram 512x300x3 | 22 | VoxCeleb2 | cosine | | 4.41 | 7.72 | the original system
ResNet-18, AdaCos, spectrogram 512x300x3 | 12 | VoxCeleb2 | cosine | | 5.50 | 8.65 | the original system
ResNet-50 | | VoxCeleb2 | cosine | | 4.42 | 7.33 | Chung et al., Interspeech 2018
Thin ResNet-34, GhostVLAD | | VoxCeleb2 | cosine | 3.24 | 3.13 | 5.06 | Xie et al., ICASSP 2019
ResNet-34, ArcFace, no augmentation | | VoxCeleb2 | cosine | 1.54 | 1.47 | 2.65 | hyperion, its model card
ResNet-34 | 6.63 | VoxCeleb2 | cosine | 0.867 | 1.049 | 1.959 | wespeaker, examples/voxceleb/v2
ResNet-34 | 6.63 | VoxCeleb2 | AS-norm | 0.787 | 0.964 | 1.726 | wespeaker, examples/voxceleb/v2
ResNet-34 | 6.63 | VoxCeleb2 | AS-norm, QMF | 0.718 | 0.911 | 1.606 | wespeaker, examples/voxceleb/v2
ResNet-34, large margin | 6.63 | VoxCeleb2 | AS-norm, QMF | 0.659 | 0.821 | 1.437 | wespeaker, examples/voxceleb/v2
CAM++, large margin | 7.18 | VoxCeleb2 | AS-norm | 0.659 | 0.803 | 1.569 | wespeaker, examples/voxceleb/v2
ReDimNet2-B6 | 12.3 | VoxCeleb2 | cosine | 0.29 | 0.52 | 0.99 | arXiv 2603.11841
w2v-BERT 2.0, LoRA | 586 | self-supervised, VoxCeleb2, VoxBlink2 | AS-norm, QMF | 0.12 | 0.27 | 0.55 | arXiv 2510.04213
"""


def table() -> pd.DataFrame:
    """
    Published systems, a row each.

    Returns
    -------
    pd.DataFrame
        ``system, parameters`` [million], ``training data, scoring, O, E, H`` [%] and ``source``; NaN where not
        published.

    Examples
    --------
    >>> table().loc[0, ["E", "H"]].tolist()
    [4.41, 7.72]
    """
    return pd.read_csv(io.StringIO(_TABLE), sep=r"\s*\|\s*", engine="python")
