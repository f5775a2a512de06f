"""Progress of a computation on stderr, for commands and for Python in a terminal."""

import sys
import time

#: Seconds between two lines of a log, and between two states of one line in a terminal.
_QUIET_S, _WATCHED_S = 30.0, 0.2
#: Seconds after which the time that is left is estimated, and, in Python, after which there is progress at all.
_SHORT_S = 2.0


class Progress:
    """Progress on stderr: one line that is updated in a terminal, a line every half minute in a log.

    Parameters
    ----------
    quiet : bool, default=False
        Whether to say nothing.
    patient : bool, default=False
        Whether to say nothing of stages that take less than two seconds.

    Examples
    --------
    >>> Progress(quiet=True)("extract", 1, 2)
    """

    def __init__(self, *, quiet: bool = False, patient: bool = False):
        self.quiet, self.patient, self.watched = quiet, patient, sys.stderr.isatty()
        self.last, self.open, self.began = float("-inf"), False, {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are finished, and how long the others may take."""
        now = time.monotonic()
        began, before = self.began.setdefault(stage, (now, done))
        finished, spent = done >= total, now - began
        if finished:
            del self.began[stage]
        late = now - self.last >= (_WATCHED_S if self.watched else _QUIET_S)
        if self.quiet or not (finished or late) or (self.patient and spent < _SHORT_S):
            return
        self.last = now
        text = f"{stage}: {done:,} of {total:,}, {spent:.0f} s"
        if spent >= _SHORT_S and before < done < total:
            text += f", about {_duration(spent * (total - done) / (done - before))} left"
        if self.watched:
            self._write(f"\r\033[K{text}" + "\n" * finished)
        else:
            self._write(f"{text}\n")
        self.open = self.watched and not finished

    def say(self, text: str) -> None:
        """Print a sentence on a line of its own."""
        if not self.quiet:
            self._write("\n" * self.open + f"{text}\n")
        self.open = False

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it any more, or the disk of the log is full: the work goes on
            self.quiet, self.open = True, False


def _duration(seconds: float) -> str:
    """Give seconds as a person says them, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
