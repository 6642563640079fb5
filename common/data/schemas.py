"""JSON and plain values checked against types: what is read from a file is known before it is used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import InputError, brief, require
from common.io import MIB, read_bounded

T = TypeVar("T")
MAX_VALUES = 10**6  # values that a file of ours never reaches


def read_json(path: Path, kind: type[T], remedy: str, at_most: int = 64 * MIB) -> T:
    """Read a JSON file as a type, such as a msgspec.Struct.

    Args:
        remedy: what to do about a missing or damaged file, the end of the error message.
        at_most: bytes.

    Raises:
        InputError: the file is missing, too large, or not what the type says; the message names the field.
    """
    return decode(read_bounded(path, remedy, at_most), kind, str(path), remedy)


def read_json_lines(path: Path, kind: type[T], remedy: str, at_most: int = 1024 * MIB) -> list[T]:
    """Read a file with one JSON value a line. A last line without its end was cut off and is left out.

    Args, raises: as `read_json`.
    """
    lines = read_bounded(path, remedy, at_most).split(b"\n")[:-1]
    return [decode(line, kind, f"{path}, line {i}", remedy) for i, line in enumerate(lines, start=1)]


def leaves(value: object, name: str, remedy: str) -> Iterator[object]:
    """The values in nested lists, tuples and dicts. They come in no particular order.

    Raises:
        InputError: there are more than MAX_VALUES, for example because a list holds another one many times, or itself.
    """
    waiting, n = [value], 0
    while waiting:
        holder = waiting.pop()
        if not isinstance(holder, list | tuple | dict):
            yield holder
            continue
        n += len(holder)
        require(n <= MAX_VALUES, f"{name} is damaged, it holds more than {MAX_VALUES} values: {remedy}")
        waiting.extend(holder.values() if isinstance(holder, dict) else holder)


def check(value: Any, kind: type[T], name: str, remedy: str) -> T:  # noqa: ANN401 (anything that a file can hold)
    """Convert plain values and tensors to a type, such as a msgspec.Struct.

    Args:
        name: what they are, the beginning of the error message.

    Raises:
        InputError: they are not what the type says; the message names the field.
    """
    for _ in leaves(value, name, remedy):
        pass
    try:
        return msgspec.convert(value, kind, dec_hook=_as_it_is)
    except (msgspec.ValidationError, TypeError, AttributeError) as error:  # AttributeError: a tensor for a dict
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def decode(content: bytes | str, kind: type[T], name: str, remedy: str) -> T:
    """JSON as a type, such as a msgspec.Struct.

    Args:
        name: what it is, the beginning of the error message.

    Raises:
        InputError: it is not what the type says; the message names the field.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def _as_it_is(kind: type, value: object) -> object:
    """A value of a type that msgspec does not know, such as a tensor."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
