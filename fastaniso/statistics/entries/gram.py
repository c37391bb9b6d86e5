"""Metrics of second moments: the scatter of the rows or of the unit rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastaniso.statistics import cosine, spectrum
from fastaniso.statistics.metric import RAW, UNIT, Metric, Needs, Options, States

GRAM = "O(n d^2), one read"
SPECTRUM = "O(n d^2 + d^3), one read"
FORM = {"center": True, "standardize": False, "unit": False}
UNCENTRED = {**FORM, "center": False}


def _scatter(options: Options) -> Needs:
    return {UNIT if options["unit"] else RAW: {}}


def _of_spectrum(score: Callable[[Tensor], Tensor]) -> Callable[[States, Options], Tensor]:
    return lambda states, options: score(_eigenvalues(states, options))


def _eigenvalues(states: States, options: Options) -> Tensor:
    return states.spectra.eigenvalues(
        center=options["center"], standardize=options["standardize"], unit=options["unit"]
    )


def _spectral(name: str, value: Callable[[States, Options], Tensor], **about: Any) -> Metric:
    return Metric(
        name=name,
        structure="gram",
        cost=about.pop("cost", SPECTRUM),
        few_rows=True,
        needs=about.pop("needs", _scatter),
        value=value,
        **about,
    )


def _participation_ratio(states: States, options: Options) -> Tensor:
    return spectrum.participation_ratio_of(states.spectra.gram, **options)


def _isoscore(states: States, options: Options) -> Tensor:
    return spectrum.isoscore(spectrum.participation_ratio_of(states.spectra.gram, **options), states.linear.dim)


def _isoscore_star(states: States, options: Options) -> Tensor:
    return spectrum.isoscore_star(states.spectra.gram, **options)


def _rankme(states: States, options: Options) -> Tensor:
    return spectrum.rankme_of(states.spectra, **options)


def _mev(states: States, options: Options) -> Tensor:
    return spectrum.mev_of(states.spectra, **options)


def _alpha_req(states: States, options: Options) -> Tensor:
    eigenvalues = _eigenvalues(states, options)
    return spectrum.alpha_req(eigenvalues, options["ranks"], legacy=options["legacy"])


ENTRIES = (
    Metric(
        name="cosine_std",
        structure="gram",
        range="[0, 1]",
        convention="over the n(n-1) ordered pairs i != j",
        source="",
        cost=GRAM,
        needs=lambda options: {UNIT: {}},
        value=lambda states, options: cosine.std(states.spectra.gram),
    ),
    Metric(
        name="self_clustering",
        structure="gram",
        range="[-1/(max(n, d)-1), 1]",
        convention="(E[c^2] - 1/d) / (1 - 1/d) over the pairs i != j",
        source="Tsitsulin et al. 2023",
        cost=GRAM,
        needs=lambda options: {UNIT: {}},
        value=lambda states, options: spectrum.self_clustering(states.spectra.gram),
    ),
    _spectral(
        "participation_ratio",
        _participation_ratio,
        range="[1, d]",
        convention="tr(C)^2 / |C|_F^2",
        source="Gao et al. 2017",
        cost=GRAM,
        options={**FORM, "corrected": False},
        also=("pr", "dimensionality"),
    ),
    _spectral(
        "isoscore",
        _isoscore,
        range="[0, 1]",
        convention="(participation ratio - 1) / (d - 1), centred",
        source="Rudman et al. 2022",
        cost=GRAM,
        options={"standardize": False, "unit": False, "corrected": False},
    ),
    _spectral(
        "isoscore_star",
        _isoscore_star,
        range="[0, 1]",
        convention="IsoScore of (1 - zeta) C + zeta C0, centred; C0 = (tr C / d) I unless given",
        source="Rudman & Eickhoff 2023",
        cost=GRAM,
        options={"zeta": 0.2, "target": None, "legacy": None},
        needs=lambda options: {RAW: {}},
        also=("isoscore*",),
    ),
    _spectral(
        "effective_rank",
        _of_spectrum(spectrum.effective_rank),
        range="[1, min(n, d)]",
        convention="exp of the entropy of singular values over their sum",
        source="Roy & Vetterli 2007",
        options=UNCENTRED,
        also=("erank",),
    ),
    _spectral(
        "rankme",
        _rankme,
        range="[1, min(n, d)], a little more by epsilon",
        convention="exp of the entropy of sigma / sum(sigma) + epsilon",
        source="Garrido et al. 2023",
        options={**UNCENTRED, "epsilon": 1e-7, "legacy": None},
    ),
    _spectral(
        "stable_rank",
        _of_spectrum(lambda eigenvalues: 1 / spectrum.top_share(eigenvalues)),
        range="[1, min(n, d)]",
        convention="|X|_F^2 / sigma_1^2",
        source="Rudelson & Vershynin 2007",
        options=UNCENTRED,
        also=("numerical rank",),
    ),
    _spectral(
        "nesum",
        _of_spectrum(lambda eigenvalues: 1 / spectrum.top_share(eigenvalues)),
        range="[1, min(n - 1, d)]",
        convention="sum of eigenvalues / largest",
        source="He & Ozay 2022",
        options=FORM,
        also=("normalized eigenvalue sum",),
    ),
    _spectral(
        "top_eigenvalue_share",
        _of_spectrum(spectrum.top_share),
        range="[1/d, 1]",
        convention="largest eigenvalue / sum of eigenvalues",
        source="Razzhigaev et al. 2023, as anisotropy",
        options=FORM,
        also=("anisotropy",),
    ),
    _spectral(
        "variance_explained",
        lambda states, options: spectrum.variance_explained(_eigenvalues(states, options), options["k"]),
        range="[k/d, 1]",
        convention="sum of the k largest eigenvalues / sum of all",
        source="Jolliffe 2002",
        options={"k": 10, **FORM},
        also=("varex", "explained variance ratio"),
    ),
    _spectral(
        "spectral_entropy",
        _of_spectrum(spectrum.spectral_entropy),
        range="[0, 1]",
        convention="entropy of eigenvalues over their sum / log d",
        source="Roy & Vetterli 2007",
        options=FORM,
        also=("von neumann entropy",),
    ),
    _spectral(
        "condition_number",
        _of_spectrum(spectrum.condition_number),
        range="[1, inf]",
        convention="largest / smallest eigenvalue",
        source="",
        options=FORM,
        also=("kappa",),
    ),
    _spectral(
        "alpha_req",
        _alpha_req,
        range="[0, inf)",
        convention="minus the least-squares slope of log eigenvalue on log rank, over the ranks",
        source="Agrawal et al. 2022",
        options={"ranks": (10, 100), **FORM, "legacy": None},
        also=("alpha-req", "power law", "eigenspectrum decay"),
    ),
    _spectral(
        "mev",
        _mev,
        range="[1/min(n, d), 1]",
        convention="sigma_1^2 / sum sigma^2 of the rows as they are",
        source="Ethayarajh 2019",
        options={**UNCENTRED, "legacy": None},
        also=("maximum explainable variance",),
    ),
)
