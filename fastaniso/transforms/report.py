"""What a transform changed: the rows before and after, described side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastaniso.accumulator import Accumulator
from fastaniso.result import Description, Result
from fastaniso.rows import as_rows
from fastaniso.transforms.sums import block_rows


@dataclass(frozen=True)
class BeforeAfter(Result):
    """Descriptions of the same rows before and after a transform; prints as a table.

    Rows that the transform made zero have no direction: ``after`` leaves them out and counts them in ``dropped``.
    """

    transform: str
    before: Description = field(repr=False)
    after: Description = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """``transform``, and the dicts of ``before`` and ``after``."""
        return {"transform": self.transform, "before": self.before.to_dict(), "after": self.after.to_dict()}

    def __str__(self) -> str:
        """The table that ``print`` shows."""
        cells = [("", "before", "after"), *_figures(self.before, self.after)]
        label, before, after = (max(len(row[k]) for row in cells) for k in range(3))
        lines = (f"{a:<{label}}  {b:>{before}}  {c:>{after}}" for a, b, c in cells)
        notes = dict.fromkeys((*self.before.notes, *self.after.notes))
        return "\n".join((self.transform, *lines, *notes))


def report(
    transform: Any, hidden: Any, *, mask: Any = None, gram: bool | str = True, invalid: str = "raise"
) -> BeforeAfter:
    """``describe`` of the rows before and after a fitted transform, or a Pipeline of them, with its conventions.

    ``hidden`` is a tensor ``[..., d]`` or an array; rows are transformed a block at a time and rounded to their dtype,
    and never held together. Arguments otherwise as for ``fastaniso.describe``; ``gram=False`` leaves out the O(n d²)
    part.
    """
    rows = as_rows(hidden, mask)
    before, after = Accumulator(gram=gram, invalid=invalid), Accumulator(gram=gram, invalid="omit")
    before.update(hidden, mask)
    described = before.result()
    if not described.n:
        raise ValueError("hidden: no row is left to transform; every one is masked, zero or not finite")
    for _, block in rows.blocks(block_rows(rows)):
        values = block.values.flatten(0, 1) if block.mask is None else block.values[block.mask]
        values = values[values.isfinite().all(1)] if described.dropped.nonfinite else values
        if len(values):
            after.update(transform.transform(values))
    return BeforeAfter(repr(transform), described, after.result())


def _figures(before: Description, after: Description) -> list[tuple[str, str, str]]:
    counts = [
        ("rows", before.n, after.n),
        ("dimensions", before.dim, after.dim),
        ("zero rows left out", before.dropped.zero, after.dropped.zero),
    ]
    values = [
        ("mean cosine", before.mean_cosine, after.mean_cosine),
        ("  without the top 3 dimensions", before.mean_cosine_without_top3, after.mean_cosine_without_top3),
        ("cosine std", before.cosine_std, after.cosine_std),
        ("drift ‖mean‖ / mean norm", before.drift.relative, after.drift.relative),
        ("norm, mean", before.norms.mean, after.norms.mean),
        ("participation ratio", before.participation_ratio, after.participation_ratio),
        ("IsoScore", before.isoscore, after.isoscore),
        ("effective rank (uncentred)", before.effective_rank, after.effective_rank),
    ]
    return [
        *((name, f"{first:,}", f"{second:,}") for name, first, second in counts),
        *((name, f"{a:.4g}", f"{b:.4g}") for name, a, b in values if a is not None and b is not None),
    ]
