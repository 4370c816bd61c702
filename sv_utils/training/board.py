"""Curves for TensorBoard."""

from pathlib import Path

import keras

from sv_utils.training.validation import Judgement


class Board:
    """
    Writes what TensorBoard shows; under another backend than TensorFlow, which has the writer, it writes nothing.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self._summary = None
        if keras.backend.backend() == "tensorflow":
            from tensorflow import summary

            self._summary, self._writer = summary, summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve."""
        if self._summary:
            with self._writer.as_default(step):
                for name, value in values.items():
                    self._summary.scalar(name, value)

    def judgement(self, step: int, judgement: Judgement) -> None:
        """Add validation EER [%], spread, and histograms of the scores."""
        self.scalars(step, {"validation/EER": 100 * judgement.eer, "validation/spread": judgement.spread})
        if self._summary:
            with self._writer.as_default(step):
                self._summary.histogram("scores/target", judgement.target)
                self._summary.histogram("scores/non-target", judgement.nontarget)
            self._writer.flush()
