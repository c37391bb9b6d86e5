"""The statistics of a Dask array of vectors: a state for each block of rows, merged by a tree.

Needs dask[array] beside fastaniso, which every worker has to have, too:

    python examples/dask_states.py

What goes between workers is states as bytes of safetensors. Each says which rows it is of, so that merging the same
rows twice is an error.
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np

import fastaniso

MERGED_AT_ONCE = 8


@dask.delayed
def state_of(block: np.ndarray, start: int) -> bytes:
    """The state of a block, whose first row is ``start``."""
    accumulator = fastaniso.Accumulator(gram=True).update(block, source="vectors", start=start)
    return fastaniso.state_to_bytes(accumulator.state)


@dask.delayed
def merged(states: list[bytes]) -> bytes:
    """Several states as one."""
    first, *others = (fastaniso.bytes_to_state(state) for state in states)
    for other in others:
        first = first.merge(other)
    return fastaniso.state_to_bytes(first)


def reduced(vectors: da.Array) -> bytes:
    """The state of all rows: of blocks of whole rows, merged in their order, the same bits on any cluster."""
    blocks = vectors.rechunk({1: -1})
    starts = np.cumsum([0, *blocks.chunks[0][:-1]])
    parts = zip(blocks.to_delayed().ravel(), starts, strict=True)
    states = [state_of(block, int(start)) for block, start in parts]
    while len(states) > 1:
        states = [merged(states[at : at + MERGED_AT_ONCE]) for at in range(0, len(states), MERGED_AT_ONCE)]
    return states[0].compute(scheduler="processes", num_workers=2)


def main() -> None:
    """20,000 vectors in twenty blocks, by Dask in two processes and by one call."""
    rows = np.random.default_rng(0).standard_normal((20_000, 64), np.float32) + np.float32(0.3)
    state = fastaniso.bytes_to_state(reduced(da.from_array(rows, chunks=(1000, 32))))
    compare("Dask", fastaniso.describe_state(state), fastaniso.describe(rows))


def compare(name: str, found: fastaniso.Description, expected: fastaniso.Description) -> None:
    """Both, a statistic a line."""
    print(f"{'':20}{name:>22}{'describe':>22}  relative difference")
    for statistic in ("n", "mean_cosine", "cosine_std", "isoscore", "effective_rank", "participation_ratio"):
        ours, theirs = getattr(found, statistic), getattr(expected, statistic)
        print(f"{statistic:20}{ours:22.15g}{theirs:22.15g}  {abs(ours - theirs) / theirs:.0e}")


if __name__ == "__main__":
    main()
