import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepprofile.store import round_mantissa

SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal
floats = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3, min_side=0), elements=st.floats(width=32)
)


@given(floats, st.integers(1, 23))
def test_relative_error_is_bounded_and_only_kept_bits_are_set(values, bits):
    before = values.copy()
    rounded = round_mantissa(values, bits)
    np.testing.assert_array_equal(values.view(np.uint32), before.view(np.uint32))
    finite = np.isfinite(values)
    np.testing.assert_array_equal(rounded[~finite].view(np.uint32), values[~finite].view(np.uint32))
    normal = finite & (np.abs(values) >= SMALLEST_NORMAL)
    exact = values[normal].astype(np.float64)
    error = np.abs(rounded[normal].astype(np.float64) - exact)
    assert (error <= np.abs(exact) * 2.0 ** -(bits + 1)).all()
    assert np.isfinite(rounded[finite]).all()


@given(floats, st.integers(1, 23))
def test_rounding_again_changes_nothing(values, bits):
    once = round_mantissa(values, bits)
    twice = round_mantissa(once, bits)
    np.testing.assert_array_equal(twice.view(np.uint32), once.view(np.uint32))


@given(st.integers(-(2**10), 2**10), st.integers(1, 9))
def test_ties_go_to_even_as_python_rounds_integers(number, bits):
    scale = 2 ** max(0, abs(number).bit_length() - 1 - bits)
    expected = round(number / scale) * scale
    assert round_mantissa(np.array([number], dtype=np.float32), bits)[0] == expected


def test_dropped_bits_are_zero():
    values = np.random.default_rng(0).random(1000, dtype=np.float32)
    assert not (round_mantissa(values, 12).view(np.uint32) & np.uint32((1 << 11) - 1)).any()


def test_strided_input_is_rounded_like_a_copy():
    values = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    np.testing.assert_array_equal(
        round_mantissa(values.T[::2], 7), round_mantissa(values, 7).T[::2]
    )


@pytest.mark.parametrize("bits", [0, 24])
def test_bits_outside_the_mantissa_are_refused(bits):
    with pytest.raises(ValueError, match="1 to 23"):
        round_mantissa(np.ones(3, dtype=np.float32), bits)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="float64"):
        round_mantissa(np.ones(3), 8)
