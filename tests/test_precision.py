"""The number format that a device computes in fast."""

from types import SimpleNamespace

import pytest

from nft_jax.precision import fast_dtype


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ({"platform": "cpu"}, "float32"),
        ({"platform": "tpu"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "7.5"}, "float32"),  # a T4
        ({"platform": "gpu", "compute_capability": "8.0"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "10.0"}, "bfloat16"),
    ],
)
def test_fast_dtype_is_float32_where_bfloat16_is_emulated(device, dtype):
    assert fast_dtype(SimpleNamespace(**device)) == dtype
