"""The one exception for what a user can cause and mend."""


class InputError(Exception):
    """Something given to the program is unusable: a file, an option, a checkpoint, a loss that diverged.

    Its message is one line that names the thing and the way out; scripts print it and exit with 2.
    """


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless the condition holds."""
    if not condition:
        raise InputError(message)


def option(field: str) -> str:
    return "--" + field.replace("_", "-")


def flag(field: str, value: object) -> str:
    """How the command line gives an option's value."""
    if isinstance(value, bool):
        return option(field if value else f"no_{field}")
    return f"{option(field)} {value}"
