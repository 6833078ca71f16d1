"""How far a result may lie from its oracle, by dtype, and the dtypes that tests run over."""

import numpy as np
import torch

# A few units in the last place of each type, times the depth of the sums that are compared.
TOLERANCE = {
    torch.float16: {"atol": 4e-3, "rtol": 4e-3},
    torch.bfloat16: {"atol": 3e-2, "rtol": 3e-2},
    torch.float32: {"atol": 2e-5, "rtol": 2e-5},
    torch.float64: {"atol": 1e-10, "rtol": 1e-10},
}
DTYPES = tuple(TOLERANCE)


def assert_near(actual, expected, dtype=None, **tolerance):
    """Compare values in float64, to within the tolerance of `dtype` (that of `actual`)."""
    tolerance = tolerance or TOLERANCE[dtype or actual.dtype]
    if not isinstance(expected, torch.Tensor):
        expected = torch.from_numpy(np.asarray(expected, float))
    torch.testing.assert_close(actual.detach().double(), expected.detach().double(), **tolerance)
