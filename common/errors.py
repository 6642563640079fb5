"""The exception for whatever a user can cause and correct, checks that many configs have, and an option's spelling."""

from collections.abc import Mapping


class InputError(Exception):
    """A file, option, value or checkpoint is unusable, or a loss diverged.

    The message is one line: what was given, what is allowed, what to do. Scripts print it and exit with status 2.
    """


class Diverged(InputError):
    """A training's loss, weights or moments are not finite."""


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless the condition holds."""
    if not condition:
        raise InputError(message)


def require_names(*given: object) -> None:
    """Raise `InputError` for names of modalities that are one string, which would be read letter by letter."""
    strings = [names for names in given if isinstance(names, str)]
    require(not strings, f"name modalities in tuples: {', '.join(f'({x!r},), not {x!r}' for x in strings)}")


def require_positive(config: object, *fields: str) -> None:
    """Raise `InputError` for options of a config, numbers or tuples of them, that are neither None nor positive."""
    for field in fields:
        value = getattr(config, field)
        for number in value if isinstance(value, tuple) else (value,):
            require(number is None or number > 0, f"{option(field)} must be positive, not {number}")


def require_different(config: object, *fields: str) -> None:
    """Raise `InputError` for options of a config that take several values and have none, or one twice."""
    for field in fields:
        values = getattr(config, field)
        given = " ".join(map(str, values)) or "none"
        require(0 < len(values) == len(set(values)), f"{option(field)} must name at least one, each once (got {given})")


def require_seed(config: object, field: str = "seed") -> None:
    """Raise `InputError` for a seed that PyTorch and NumPy do not both take."""
    value = getattr(config, field)
    require(0 <= value < 2**32, f"{option(field)} must lie between 0 and 2^32 - 1, it is {value}")


def brief(error: Exception | str) -> str:
    """The beginning of a long message, such as another library's, in one line."""
    message = " ".join(str(error).split())
    return message if len(message) <= 200 else f"{message[:200]}..."


def option(field: str) -> str:
    """The command-line option of a config field: "batch_size" -> "--batch-size"."""
    return "--" + field.replace("_", "-")


def install(package: str) -> str:
    """How to get a package that only some scripts need."""
    return f"pip install {package}, or make setup-all for all extras"


def flag(field: str, value: object) -> str:
    """A config field and its value as the command line takes them: "--batch-size 100", "--no-cuda", "--seeds 0 1".

    None is "no --batch-size".
    """
    if value is None:
        return f"no {option(field)}"
    if isinstance(value, bool):
        return option(field if value else f"no_{field}")
    if isinstance(value, tuple | list):
        value = " ".join(map(str, value))
    return f"{option(field)} {brief(str(value))}"


def flags(options: Mapping[str, object]) -> str:
    """Config fields and their values as the command line takes them."""
    return " ".join(flag(name, value) for name, value in options.items())
