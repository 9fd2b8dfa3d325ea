"""Rounding of mantissas: bits that carry no information are zeroed before compression."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

MANTISSA_BITS = 23
"""Bits of the mantissa of float32, without the leading one."""
_EXPONENT = np.uint32(0x7F800000)


def round_mantissa(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round to the nearest number with ``bits`` bits of mantissa, ties to even.

    The relative error of a normal number is at most 2^-(bits + 1); that of a subnormal one may be
    larger. NaN and infinity keep their bits, and a number that would round up to infinity is
    left as it is.

    Args:
        values: float32, any shape; not changed.
        bits: bits to keep, 1 to 23.

    Returns:
        float32 of the same shape.

    Raises:
        TypeError: if the values are not float32.
        ValueError: if ``bits`` lies outside 1 to 23.
    """
    if values.dtype != np.float32:
        raise TypeError(f"mantissas are rounded in float32 arrays; found dtype {values.dtype}")
    if not 1 <= bits <= MANTISSA_BITS:
        raise ValueError(f"bits to keep is {bits}: expected 1 to {MANTISSA_BITS}")
    rounded = np.array(values, order="C", copy=True)
    if bits < MANTISSA_BITS:
        _round(rounded.reshape(-1).view(np.uint32), MANTISSA_BITS - bits)
    return rounded


@njit(cache=True)
def _round(words: NDArray[np.uint32], drop: int) -> None:
    """Round the bit patterns of float32 in place, dropping ``drop`` bits."""
    one, shift = np.uint32(1), np.uint32(drop)
    below_half = (one << (shift - one)) - one
    keep = ~((one << shift) - one)
    for i in range(words.size):
        word = words[i]
        if word & _EXPONENT == _EXPONENT:
            continue
        result = (word + below_half + ((word >> shift) & one)) & keep
        if result & _EXPONENT != _EXPONENT:
            words[i] = result
