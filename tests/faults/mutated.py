"""Damaged versions of a file's content, always the same for a seed."""

from collections.abc import Iterator
from random import Random

EDGE = 512  # bytes at either end, where most formats have their lengths; every second fault falls there
SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**63 - 1, 2**64 - 1)


def mutations(content: bytes, seed: int, n: int) -> Iterator[bytes]:
    """Yield n damaged versions of a content; the first ones do not depend on n."""
    random = Random(f"{seed} {len(content)}")
    for _ in range(n):
        damaged = bytearray(content)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            random.choice(KINDS)(damaged, random)
        yield bytes(damaged)


def _place(content: bytearray, random: Random) -> int:
    """The number of a byte: in the first or the last EDGE bytes, or anywhere."""
    size = len(content)
    low, high = random.choice(((0, EDGE), (size - EDGE, size), (0, size), (0, size)))
    return random.randrange(max(low, 0), max(min(high, size), 1))


def _flip_bits(content: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 2, 8))):
        place = _place(content, random)
        content[place : place + 1] = bytes(x ^ 1 << random.randrange(8) for x in content[place : place + 1])


def _set_size(content: bytearray, random: Random) -> None:
    """Write an extreme integer of 1 to 8 bytes, in either byte order."""
    n_bytes, place = random.choice((1, 2, 4, 4, 4, 8)), _place(content, random)
    size = random.choice(SIZES) % 2 ** (8 * n_bytes)
    content[place : place + n_bytes] = size.to_bytes(n_bytes, random.choice(("little", "big")))


def _truncate(content: bytearray, random: Random) -> None:
    del content[_place(content, random) :]


def _overwrite(content: bytearray, random: Random) -> None:
    """Write a run of zeros, of ones, or of random bytes."""
    place, length = _place(content, random), random.choice((4, 16, 64, 512))
    fill = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    content[place : place + length] = fill


def _remove(content: bytearray, random: Random) -> None:
    place = _place(content, random)
    del content[place : place + random.choice((1, 2, 4, 16, 256))]


def _repeat(content: bytearray, random: Random) -> None:
    place = _place(content, random)
    chunk = content[place : place + random.choice((1, 4, 16, 256))]
    content[place:place] = chunk * random.choice((1, 2, 100))


KINDS = (_flip_bits, _flip_bits, _set_size, _set_size, _truncate, _overwrite, _remove, _repeat)
