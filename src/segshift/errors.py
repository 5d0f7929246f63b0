"""What ends a run with a message instead of a traceback."""


class InputError(ValueError):
    """Wrong input. The command line prints the message alone, without a traceback."""


class ClaimError(InputError):
    """A file whose header declares more voxels than its bytes can hold."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer finite; the message names the last good checkpoint."""
