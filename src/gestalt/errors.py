"""What can go wrong because of a user, a file or a configuration: one parent, four kinds; lists in messages."""

from collections.abc import Sequence

# Of names in a message.
SHOWN_NAMES = 10


class GestaltError(Exception):
    """Parent of every error that Gestalt raises on purpose; its message says what to do."""


class ConfigError(GestaltError):
    """A key of ``params.yaml`` is unknown, missing, of the wrong type or out of range."""


class DataError(GestaltError):
    """A file or folder is missing, broken or not what its format says."""


class ShapeError(GestaltError):
    """An array has another shape or dtype than the function states."""


class MissingDependencyError(GestaltError):
    """An optional library is not installed; the message names the extra that brings it."""


def name_some(names: Sequence[object]) -> str:
    """The first names of a list and how many more there are, for a message."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(str, names[:SHOWN_NAMES])) + more
