"""JSON and plain values checked against types: what is read from a file is known before it is used.

A remedy is what to do about a missing or damaged file, the end of the error message.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import InputError, brief, require
from common.io import MIB, open_regular, read_bounded

T = TypeVar("T")


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """Read a JSON file of at most a MiB as a type, such as a msgspec.Struct.

    Raises:
        InputError: the file is missing, too large, or not what the type says; the message names the field.
    """
    return decode(read_bounded(path, remedy, MIB), kind, str(path), remedy)


def read_json_lines(path: Path, kind: type[T], remedy: str) -> list[T]:
    """Read a file with one JSON value a line, of at most a MiB. A last line without its end is left out.

    Raises: as `read_json`.
    """
    values = []
    with open_regular(path, remedy) as file:
        while (line := file.readline(MIB + 1)).endswith(b"\n"):
            values.append(decode(line, kind, f"{path}, line {len(values) + 1}", remedy))
    require(len(line) <= MIB, f"{path}, line {len(values) + 1} has more than a MiB, too much for its kind: {remedy}")
    return values


def as_type(value: Any, kind: type[T], name: str, remedy: str) -> T:  # noqa: ANN401 (anything that a file can hold)
    """Convert plain values and tensors to a type, such as a msgspec.Struct.

    Args:
        name: what they are, the beginning of the error message.

    Raises:
        InputError: they are not what the type says; the message names the field.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_as_it_is)
    except (msgspec.ValidationError, TypeError, AttributeError) as error:  # AttributeError: a tensor for a dict
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def decode(content: bytes | str, kind: type[T], name: str, remedy: str) -> T:
    """JSON as a type; args and errors as those of `as_type`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def _as_it_is(kind: type, value: object) -> object:
    """A value of a type that msgspec does not know, such as a tensor."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
