"""Messages that could not be understood: counted, and shown once for each kind."""

import logging
from collections import Counter
from typing import Final

__all__ = ["BadFrames"]

SAMPLE_BYTES: Final = 300


class BadFrames:
    """Counts messages that are not what the venue documents, and logs the first of each kind.

    The sample shows what came, cut to 300 bytes. Kinds are short phrases, few in number.
    """

    def __init__(self, log: logging.Logger, source: str) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._source = source

    def note(self, kind: str, frame: bytes | bytearray | memoryview | str, error: object = "") -> None:
        """Count one message of a kind that cannot be used, and show it if it is the first."""
        self.counts[kind] += 1
        if self.counts[kind] > 1:
            return
        sample = frame[:SAMPLE_BYTES] if isinstance(frame, str) else bytes(frame[:SAMPLE_BYTES])
        self._log.warning(
            "%s: %s: %s; it is left out, others of this kind are counted only. It began: %r",
            self._source,
            kind,
            error or "not understood",
            sample,
        )
