"""How many directions rows take up: one number between 1 and d, or between 0 and 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastaniso.functional.spectral.scoring import gram_of, spectra_of, spectral_score
from fastaniso.state import Gram
from fastaniso.statistics import spectrum


def participation_ratio(
    hidden: Any,
    *,
    center: bool = True,
    standardize: bool = False,
    unit: bool = False,
    corrected: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """tr(C)²/‖C‖_F² = (Σλ)²/Σλ² of the centred covariance, from 1 (one direction) to d (isotropic).

    Two traces, no eigendecomposition: O(n d²) time in one read, O(d²) memory, float64 sums. Gao et al. (2017).

    Of n isotropic rows it is 1/(1/n + 1/d), not d: a UserWarning below 10 rows a dimension. ``corrected=True`` takes
    that bias away: tr(C²) by its unbiased estimate for normal rows (Srivastava 2005), at most d; with heavier tails
    part of the bias stays.

    Known wrong: comparing values at different n; calling tr(C)²/tr(C²) of *uncentred* rows by this name, which the
    drift of the mean takes to 1.

    Args:
        hidden: ``[..., d]`` float32, float64, float16 or bfloat16: tensor, NumPy array or anything with DLPack.
        center: Of x − x̄; False: of the rows as they are, second moments for covariances.
        standardize: Of correlations: each dimension divided by its std. Needs ``center=True``.
        unit: Of u = x/‖x‖ in place of x.
        corrected: Without the bias of finite n. Needs ``center=True``.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when the rows do not vary.

    Raises:
        InvalidRowsError: A row cannot be normalised and ``invalid="raise"``.
    """
    gram = gram_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    form = {"center": center, "standardize": standardize, "unit": unit}
    return spectral_score(gram, spectrum.participation_ratio_of(gram, **form, corrected=corrected), invalid)


def isoscore(
    hidden: Any,
    *,
    standardize: bool = False,
    unit: bool = False,
    corrected: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """IsoScore of the centred covariance, (PR − 1)/(d − 1), from 0 (one direction) to 1 (isotropic).

    Rudman et al. (2022) define it by PCA and an isotropy defect; all of it comes to PR = ``participation_ratio``, two
    traces, no eigendecomposition, and n < d is allowed: O(n d²) time in one read, O(d²) memory.

    Isotropic rows of d = 768 score .39, .56, .87 and .96 at n = 500, 1 000, 5 000 and 20 000: a UserWarning below 10
    rows a dimension; ``corrected=True`` takes that bias away (see ``participation_ratio``). Other arguments as there.

    Known wrong: release 1.0 of the package ``IsoScore`` takes (d, n). Given (n, d) it raises where n > d, and scores
    the dimensions as if they were points where not (.196 for .153 on one set). Release 2.0 takes (n, d).

    Returns:
        nan when d = 1 or the rows do not vary.
    """
    gram = gram_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    ratio = spectrum.participation_ratio_of(gram, standardize=standardize, unit=unit, corrected=corrected)
    return spectral_score(gram, spectrum.isoscore(ratio, gram.dim), invalid)


def isoscore_star(
    hidden: Any,
    *,
    zeta: float = 0.2,
    target: Gram | Tensor | None = None,
    legacy: str | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """IsoScore* : IsoScore of the shrunk covariance (1 − ζ)C + ζC₀ of centred rows, from 0 to 1.

    Rudman & Eickhoff (2023): a few rows' C is steadied by C₀ of many. O(n d²) time in one read, O(d²) memory.

    Args:
        hidden: Rows as for ``participation_ratio``.
        zeta: ζ from 0 (IsoScore) to 1 (that of C₀ alone).
        target: C₀: a ``Gram`` of many rows (``Accumulator(gram="raw")``), or a covariance (d, d). None is (tr C/d)·I:
            it leaves the total variance as it is, so that the score is free of scale.
        legacy: "identity" is what the package ``IsoScore`` advises without a larger set: C over n − 1 and C₀ = I. The
            score then depends on the scale of the rows and goes to 1 as they shrink.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when d = 1, or the rows do not vary and C₀ does not make up for it.
    """
    gram = gram_of(hidden, mask, backend, invalid, memory_limit)
    return spectral_score(gram, spectrum.isoscore_star(gram, zeta=zeta, target=target, legacy=legacy), invalid)


def effective_rank(
    hidden: Any,
    *,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """exp of the entropy of σ/Σσ, σ the singular values of the *uncentred* rows (``center=True``: of x − x̄).

    Roy & Vetterli (2007), from 1 to min(n, d); uncentred it is RankMe without its ε. O(n d²) time in one read and an
    eigendecomposition, O(d²) memory. σ are roots of eigenvalues of the float64 scatter and count as zero where rounding
    may have made them: below √(d·2.2e-16)·σ₁, and of float32 rows, whose products are rounded, below some 1e-4·σ₁
    where that shows (pass ``hidden.double()``). A UserWarning below 10 rows a dimension. Arguments as for
    ``participation_ratio``.

    Known wrong: eigenvalues in place of singular values, which is another number.

    Returns:
        nan when every singular value is zero.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.effective_rank(eigenvalues), invalid)


def rankme(
    hidden: Any,
    *,
    epsilon: float = 1e-7,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    legacy: str | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """RankMe: exp(−Σ p_k log p_k), p_k = σ_k/Σσ + ε, σ the singular values of the *uncentred* rows, k up to min(n, d).

    Garrido et al. (2023). ε = 1e-7 is added after σ is divided by its sum and to zeros, too: Σp = 1 + ε·min(n, d), and
    where few σ are left the score is larger than ``effective_rank`` by a factor of about exp(16 ε·min(n, d)), 1.001 at
    768. From 1 to min(n, d). Costs, zeros and warnings as for ``effective_rank``, arguments as for
    ``participation_ratio``, and:

    Args:
        hidden: Rows.
        epsilon: ε; 0 is ``effective_rank``.
        center: Of x − x̄.
        standardize: See ``participation_ratio``.
        unit: See ``participation_ratio``.
        legacy: What goes by this name in public code, and is not the paper's: "centered" takes σ of the centred rows,
            "eigenvalues" σ² of the centred rows. On rows with a large mean the three differ by factors of ten.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when every singular value is zero.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    form = {"center": center, "standardize": standardize, "unit": unit}
    score = spectrum.rankme_of(spectra, epsilon=epsilon, **form, legacy=legacy)
    return spectral_score(spectra.gram, score, invalid)


def stable_rank(
    hidden: Any,
    *,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """‖X‖_F²/σ₁² = Σσ²/σ₁² of the *uncentred* rows (``center=True``: of x − x̄), from 1 to min(n, d).

    Rudelson & Vershynin (2007). 1/``mev`` of the same rows; centred it is ``nesum``. O(n d²) time in one read and an
    eigendecomposition, O(d²) memory. A UserWarning below 10 rows a dimension. Arguments as for ``participation_ratio``.

    Known wrong: with a large mean the uncentred value is about 1 whatever the rows do about it; say which one it is.

    Returns:
        nan when every row is zero or, centred, the same.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, 1 / spectrum.top_share(eigenvalues), invalid)


def nesum(
    hidden: Any,
    *,
    center: bool = True,
    standardize: bool = False,
    unit: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """Σλ/λ₁ of the centred covariance, from 1 (one direction) to d (isotropic).

    He & Ozay (2022), normalised eigenvalue sum. 1/``top_eigenvalue_share``; uncentred it is ``stable_rank``. O(n d²)
    time in one read and an eigendecomposition, O(d²) memory. λ₁ of few rows is too large, so the score is low: a
    UserWarning below 10 rows a dimension. Arguments as for ``participation_ratio``.

    Known wrong: singular values in place of eigenvalues, which is another, larger number.

    Returns:
        nan when the rows do not vary.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, 1 / spectrum.top_share(eigenvalues), invalid)
