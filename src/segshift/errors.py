"""What ends a run with a message instead of a traceback, and what need not end it at all."""

import io
import sys


class InputError(ValueError):
    """Wrong input. The command line prints the message alone, without a traceback."""


class ClaimError(InputError):
    """A file whose header declares more voxels than its bytes can hold."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer finite; the message names the last good checkpoint."""


def escape_unprintable() -> None:
    """From here on, letters that the terminal's or log's encoding lacks are printed as escapes.

    Otherwise the name of a site in another alphabet ends the work where it is told.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
