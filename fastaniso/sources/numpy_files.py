"""``.npy``: one array without a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastaniso.rows import as_tensor
from fastaniso.sources.errors import CorruptFileError
from fastaniso.sources.mapped import MappedRows
from fastaniso.sources.source import float_dtype


def open_numpy(path: Path) -> MappedRows:
    """Map an ``.npy`` file; one that holds Python objects is refused, because only running code could load it."""
    if not path.stat().st_size:
        raise CorruptFileError(f"{path}: the file is empty")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # A damaged header can make its parser raise anything.
        if "pickle" in str(error) or "Python objects" in str(error):
            raise CorruptFileError(
                f"{path}: holds Python objects, which only running code from the file could load: refused; "
                "save an array of numbers"
            ) from error
        raise CorruptFileError(f"{path}: cannot be read as an .npy array: {error}") from error
    if not isinstance(array, np.memmap):
        array.close()
        raise CorruptFileError(f"{path}: an .npz archive named .npy; save one array with numpy.save")
    if not array.dtype.isnative:
        raise ValueError(
            f"{path}: numbers of the other byte order ({array.dtype}) cannot be read in place; "
            "save array.astype(array.dtype.newbyteorder('='))"
        )
    tensor = as_tensor(array, str(path))
    return MappedRows(
        path, float_dtype(str(path), tensor.dtype), tuple(tensor.shape), array.offset, strides=tensor.stride()
    )
