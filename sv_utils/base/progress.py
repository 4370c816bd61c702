"""How long work goes on: a bar at a terminal, a line a minute everywhere else."""

import threading
import time

from tqdm import tqdm

from sv_utils.base.terminal import printable

EVERY = 60.0  # [s] between two lines


class Progress:
    """
    Progress of one piece of work, from any number of threads.

    Parameters
    ----------
    what : str
        What is going on; a line begins with it.
    unit : {'files', 'bytes'}
    total : int, optional
        Amount when all is done; it may grow (`expect`).

    Examples
    --------
    >>> with Progress("ocean: decoding", "files", 2500) as progress:
    ...     progress.add(100)
    """

    def __init__(self, what: str, unit: str, total: int = 0):
        self.what, self.unit, self.total = printable(what), unit, total
        self.done = self.before = 0
        self._started = self._told = time.monotonic()
        self._lock = threading.Lock()
        shown = {"unit": "B", "unit_scale": True} if unit == "bytes" else {"unit": f" {unit}"}
        # disable=None: without a terminal there is no bar.
        self._bar = tqdm(desc=self.what, total=total or None, disable=None, leave=False, **shown)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def expect(self, amount: int) -> None:
        """Raise the total."""
        with self._lock:
            self.total += amount
            self._bar.total = self.total

    def add(self, amount: int, done_before: bool = False) -> None:
        """Report that `amount` more is done; what an earlier call had done does not count in the rate."""
        with self._lock:
            self.done += amount
            self.before += amount if done_before else 0
            self._bar.update(amount)
            now = time.monotonic()
            if self._bar.disable and now - self._told >= EVERY:
                self._told = now
                print(self.line(now - self._started), flush=True)

    def line(self, seconds: float) -> str:
        """What a line says after `seconds` of work."""
        rate = (self.done - self.before) / seconds
        text = f"{self.what} {self._shown(self.done)}"
        text += f" of {self._shown(self.total)} {self.unit}" if self.total else f" {self.unit}"
        text += f", {self._shown(rate)}/s"
        return text + (f", {(self.total - self.done) / rate / 60:.0f} min left" if self.total and rate else "")

    def _shown(self, amount: float) -> str:
        return f"{amount / 1e6:,.1f} M" if self.unit == "bytes" else f"{amount:,.0f}"
