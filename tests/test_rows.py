"""Rows: views of what came in, never copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastaniso.rows import as_groups, as_rows

X = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[:, 1:],
        lambda x: x[0, :, ::2],
        lambda x: x[:, :, 1],
        lambda x: x[..., 1:4],
        lambda x: x[1, 1],
        lambda x: x[:, :1, 2:],
        lambda x: x[0].expand(3, 4, 5),
        lambda x: x[0, 0, 0].expand(6, 5),
        lambda x: x[:0],
        lambda x: x[..., :1],
    ],
)
def test_any_two_strides_are_read_in_place(view: object) -> None:
    hidden = view(X)  # type: ignore[operator]
    rows = as_rows(hidden)
    assert rows.values.dim() == 3
    assert (rows.count, rows.dim) == (hidden[..., 0].numel(), hidden.shape[-1])
    assert torch.equal(rows.values.reshape(-1, rows.dim), hidden.reshape(-1, rows.dim))
    if hidden.numel():
        assert rows.values.data_ptr() == hidden.data_ptr()


def test_three_strides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden: rows lie at more than two strides .* hidden\.contiguous\(\)"):
        as_rows(torch.zeros(4, 6, 8, 5)[::2, ::3, ::2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_memory_maps_are_read_in_place(dtype: type, tmp_path: Path) -> None:
    written = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=dtype, shape=(7, 3))
    written[:] = np.arange(21).reshape(7, 3)
    written.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = as_rows(mapped)
    assert rows.values.data_ptr() == mapped.ctypes.data
    assert torch.equal(rows.values[0], torch.from_numpy(np.array(mapped)))


def test_numpy_arrays_that_torch_cannot_view() -> None:
    for array in (np.zeros((3, 4))[::-1], np.zeros((3, 4), dtype=">f4")):
        with pytest.raises(TypeError, match=r"hidden: a NumPy array .* cannot be read in place"):
            as_rows(array)


def test_masks_follow_the_rows() -> None:
    mask = torch.arange(24).view(2, 3, 4) % 2 == 0
    rows = as_rows(X, mask)
    assert rows.mask is not None
    assert rows.mask.shape == rows.values.shape[:2]
    assert torch.equal(rows.mask.flatten(), mask.flatten())
    sliced = as_rows(X[:, 1:], mask[:, 1:])
    assert sliced.mask is not None
    assert torch.equal(sliced.values[sliced.mask], X[:, 1:][mask[:, 1:]])


def test_groups_follow_the_rows() -> None:
    groups = torch.arange(24, dtype=torch.int16).view(2, 3, 4)
    rows = as_rows(X)
    placed = as_groups(groups, rows, X.shape[:-1])
    assert (placed.dtype, placed.shape) == (torch.int64, rows.values.shape[:2])
    assert placed.flatten().tolist() == list(range(24))
    with pytest.raises(TypeError, match="groups: expected integers, got bool"):
        as_groups(groups > 3, rows, X.shape[:-1])
    with pytest.raises(ValueError, match="groups: expected them on cpu beside hidden, got meta"):
        as_groups(groups.to("meta"), rows, X.shape[:-1])
