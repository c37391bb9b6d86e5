"""How a spectrum falls: the share of its largest eigenvalues, its entropy, its slope, its two ends."""

from __future__ import annotations

from typing import Any

from fastaniso.functional.spectral.scoring import gram_of, spectra_of, spectral_score
from fastaniso.statistics import spectrum
from fastaniso.statistics.host import dropped_rows, to_host


def top_eigenvalue_share(
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
    """λ₁/Σλ of the centred covariance, from 1/d (isotropic) to 1 (one direction).

    "Anisotropy" of Razzhigaev et al. (2023), which here is what it says: others call the mean cosine by that name.
    1/``nesum``; uncentred it is ``mev``. O(n d²) time in one read and an eigendecomposition, O(d²) memory. A
    UserWarning below 10 rows a dimension. Arguments as for ``participation_ratio``.

    Known wrong: σ₁/Σσ, which is another, smaller number.

    Returns:
        nan when the rows do not vary.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.top_share(eigenvalues), invalid)


def variance_explained(
    hidden: Any,
    k: int = 10,
    *,
    center: bool = True,
    standardize: bool = False,
    unit: bool = False,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """(λ₁ + … + λ_k)/Σλ of the centred covariance: the share of the variance in k principal components, k/d to 1.

    O(n d²) time in one read and an eigendecomposition, O(d²) memory; 1 where k ≥ d. A UserWarning below 10 rows a
    dimension. Jolliffe (2002). Other arguments as for ``participation_ratio``.

    Known wrong: scikit-learn's ``TruncatedSVD`` divides variances of uncentred components by the variance of the rows.

    Returns:
        nan when the rows do not vary.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.variance_explained(eigenvalues, k), invalid)


def spectral_entropy(
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
    """Entropy of λ/Σλ over log d, of the centred covariance, from 0 (one direction) to 1 (isotropic).

    Of eigenvalues, where ``effective_rank`` takes singular values; uncentred unit rows give the von Neumann entropy of
    their density matrix. O(n d²) time in one read and an eigendecomposition, O(d²) memory. A UserWarning below 10 rows
    a dimension. Arguments as for ``participation_ratio``.

    Known wrong: divided by the log of the number of eigenvalues that are not zero, rows in one plane can score 1.

    Returns:
        nan when d = 1 or the rows do not vary.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.spectral_entropy(eigenvalues), invalid)


def condition_number(
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
    """λ₁/λ_d of the centred covariance, from 1 (isotropic) to inf (a direction is not taken up, or n ≤ d).

    The square of the condition number of the matrix of centred rows, ``numpy.linalg.cond(x - x.mean(0))``. O(n d²) time
    in one read and an eigendecomposition, O(d²) memory. An eigenvalue that rounding may have made is 0: the products of
    float32 rows tell up to about 1e8, those of ``hidden.double()`` up to 1/(d·2.2e-16). A UserWarning below 10 rows a
    dimension. Arguments as for ``participation_ratio``.

    Known wrong: the ratio of rounding errors, 1e16 or so, for rows that lie in a plane.

    Returns:
        nan when the rows do not vary.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.condition_number(eigenvalues), invalid)


def alpha_req(
    hidden: Any,
    ranks: tuple[int, int] = (10, 100),
    *,
    center: bool = True,
    standardize: bool = False,
    unit: bool = False,
    legacy: str | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """α of λ_k ∝ k^−α: minus the least-squares slope of log λ_k on log k, ranks 10 to 100, of the centred covariance.

    α-ReQ (Agrawal et al. 2022), 0 (isotropic) or more. O(n d²) time in one read and an eigendecomposition, O(d²)
    memory. A UserWarning below 10 rows a dimension. Other arguments as for ``participation_ratio``, and:

    Args:
        hidden: Rows.
        ranks: First and last rank of the fit, the first eigenvalue is 1, both included; ranks above d and those whose
            eigenvalue is zero are left out. α depends on them: state them with the value.
        center: See ``participation_ratio``.
        standardize: See ``participation_ratio``.
        unit: See ``participation_ratio``.
        legacy: "weighted" counts each rank 1/k, as the reference code does. That code takes indices from 0 and adds 1
            to the array that the caller passed: a second call with the same array fits other ranks.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when fewer than two ranks are left.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    eigenvalues = spectra.eigenvalues(center=center, standardize=standardize, unit=unit)
    return spectral_score(spectra.gram, spectrum.alpha_req(eigenvalues, ranks, legacy=legacy), invalid)


def mev(
    hidden: Any,
    *,
    center: bool = False,
    standardize: bool = False,
    unit: bool = False,
    legacy: str | None = None,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """Maximum explainable variance: σ₁²/Σσ² of the *uncentred* rows, from 1/min(n, d) to 1.

    Ethayarajh (2019), there of the occurrences of one word: how much of them one vector can stand for.
    1/``stable_rank``; centred it is ``top_eigenvalue_share``. O(n d²) time in one read and an eigendecomposition, O(d²)
    memory. A UserWarning below 10 rows a dimension. Arguments as for ``participation_ratio``, and:

    Args:
        hidden: Rows.
        center: Of x − x̄.
        standardize: See ``participation_ratio``.
        unit: See ``participation_ratio``.
        legacy: "centered" is what the paper's code computes (scikit-learn's PCA takes the mean away): where the
            occurrences share a mean it is far smaller.
        mask: Bool ``[...]``, True keeps a row.
        backend: "auto", "triton", "cpu" or "reference".
        invalid: "raise" refuses rows that are zero or hold NaN or Inf; "omit" leaves them out.
        memory_limit: ``MemoryError`` before the run if it takes more beside the input (bytes, or such as "2 GB").

    Returns:
        nan when every row is zero.
    """
    spectra = spectra_of(hidden, mask, backend, invalid, memory_limit, unit=unit)
    form = {"center": center, "standardize": standardize, "unit": unit}
    return spectral_score(spectra.gram, spectrum.mev_of(spectra, **form, legacy=legacy), invalid)


def self_clustering(
    hidden: Any,
    *,
    mask: Any = None,
    backend: str = "auto",
    invalid: str = "raise",
    memory_limit: int | str | None = None,
) -> float:
    """(E[c²] − 1/d)/(1 − 1/d), c the cosines over the n(n−1) ordered pairs i ≠ j: 0 (isotropic) to 1 (on one axis).

    Tsitsulin et al. (2023) write (Q − n − n(n−1)/d)/(n² − n − n(n−1)/d), Q = ‖Σuuᵀ‖_F²: the same. From mean and std of
    the cosine, which keep the digits that Q − n loses. O(n d²) time in one read, O(d²) memory; unbiased at any n, and
    a little below 0 (down to −1/(max(n, d) − 1)) where rows are more even than random ones. Arguments as for
    ``cosine_std``.

    Known wrong: with the diagonal i = j counted, isotropic rows score 1/n instead of 0.

    Returns:
        nan when d = 1 or n < 2.
    """
    gram = gram_of(hidden, mask, backend, invalid, memory_limit, unit=True)
    counts, value = to_host(gram.counts, spectrum.self_clustering(gram))
    dropped_rows(counts, invalid)
    return float(value[0])
