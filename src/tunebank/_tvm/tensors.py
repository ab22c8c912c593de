"""TVM's tensors and numpy's arrays, copied no more often than need be.

`Tensor.numpy()` copies, and `tvm.runtime.tensor` wants a contiguous array to copy from: a weight of
400 MB that is transposed would be held four times. Goes when both can share memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def array_view(tensor: Any) -> Array:
    """The tensor's own memory as an array; a copy where numpy has no such type."""
    import numpy as np

    try:
        return np.from_dlpack(tensor)
    except (RuntimeError, BufferError):
        return np.asarray(tensor.numpy())


def tensor_of(array: Array) -> Any:
    """A tensor of the array's values, whatever its strides are; they are copied once."""
    import numpy as np
    import tvm

    try:
        tensor = tvm.runtime.empty(array.shape, str(array.dtype))
        np.from_dlpack(tensor)[...] = array
    except (RuntimeError, BufferError):
        return tvm.runtime.tensor(np.ascontiguousarray(array))
    return tensor


def view(tensor: Any, shape: Sequence[int], dtype: str | None = None) -> Any:
    """The tensor's own memory as a tensor of another shape, and of another data type if given.

    TVM has no public way to it.
    """
    return tensor._create_view(tuple(shape), dtype or str(tensor.dtype))


def flat_view(tensor: Any, dtype: str | None = None) -> Any:
    """The tensor's own memory as a tensor of one dimension, of another data type if given."""
    import numpy as np

    own = str(tensor.dtype)
    count = math.prod(int(extent) for extent in tensor.shape)
    size = count * np.dtype(own).itemsize // np.dtype(dtype or own).itemsize
    return view(tensor, (size,), dtype)
