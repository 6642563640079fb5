"""The one exception for what a user can cause and mend."""


class InputError(Exception):
    """Something given to the program is unusable: a file, an option, a checkpoint, a loss that diverged.

    Its message is one line that names the thing and the way out; scripts print it and exit with 2.
    """


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless the condition holds."""
    if not condition:
        raise InputError(message)
