"""A sample drawn until it is large enough, or given up where all pairs would cost no more."""

from __future__ import annotations

import math

from fastaniso.pairing.sets import Sets
from fastaniso.progress import Meter, Report, reporter
from fastaniso.result import PairStatistics
from fastaniso.sampling.design import Design
from fastaniso.sampling.draw import TileSampler
from fastaniso.sampling.estimate import error_of_mean, sample_statistics
from fastaniso.state import Pairs

_MARGIN = 1.1  # more tiles than the pilot asks for, whose own variance is an estimate


def sample_pairs(
    sets: Sets, asked: Pairs, design: Design, *, seed: int, progress: Report | bool | None
) -> PairStatistics | None:
    """Draw tiles as designed and estimate; None if the relative error asked for takes as long as all pairs."""
    sampler = TileSampler(
        sets.rows,
        sets.others,
        design,
        seed=seed,
        asked=asked,
        pivot=sets.mean,
        backend=sets.backend,
        precision=sets.precision,
    )
    grid, tiles = design.grid, design.tiles
    # The exact mean is known: an estimate of it would stop too soon where it happens to be large.
    wanted = (design.relative_error or 0.0) * abs(sets.mean)
    with reporter(progress) as report:
        while True:
            meter = Meter(report, "pairs", "pairs", total=design.sampled_pairs(tiles), done=sampler.sums.pairs)
            for pairs in sampler.draw(tiles):
                meter.step(pairs)
            if design.relative_error is None:
                break
            half = error_of_mean(sampler.sums, sets.pairs)
            if half <= wanted:
                break
            tiles = _tiles_needed(sampler.sums.tiles, grid.tiles, half, wanted)
            if not design.is_worth_it(tiles):
                return None
    return sample_statistics(
        sampler.sums,
        sets,
        asked=asked,
        of_tiles=grid.tiles,
        rows_in_tile=grid.rows_in_tile,
        seed=seed,
    )


def _tiles_needed(drawn: int, tiles: int, half: float, wanted: float) -> int:
    """Tiles for an interval half as wide as ``wanted``: variance falls as 1/drawn − 1/tiles, and to 0 with all."""
    if not wanted:
        return tiles
    inverse = 1 / tiles + (1 / drawn - 1 / tiles) * (wanted / half) ** 2
    return min(max(math.ceil(_MARGIN / inverse), drawn + 1), tiles)
