"""The errors that this library raises on purpose: one sentence that says what to put right. Imports nothing of ours."""

from __future__ import annotations


class DuetError(ValueError):
    """A value, a model or a file that this library cannot work with; the message says what to do instead.

    The commands print it as one line. Any other exception is a bug, of this library or of another, and keeps its trace.
    """


class CacheError(DuetError, TypeError):
    """A key-value cache of a kind that visual tokens cannot be dropped from."""
