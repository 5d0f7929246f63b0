"""The one exception that means: what the user gave is wrong, and the message says how to mend it."""


class InputError(ValueError):
    """Wrong input. The command line prints the message alone, without a traceback."""


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite; the message names the last good checkpoint."""
