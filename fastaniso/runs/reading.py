"""From a folder of results to a ``Run``: the JSON as it is, and from the states all that they can still tell."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastaniso.result import Dropped, PairStatistics
from fastaniso.runs.attention import attentions_of
from fastaniso.runs.run import Noise, Run, RunSite
from fastaniso.scanning.result import prefix_of
from fastaniso.scanning.saving import state_path
from fastaniso.state import CorruptStateError, Gram, GroupMoments, Moments, Pairs, load_state
from fastaniso.statistics import jackknife
from fastaniso.statistics.catalogue import asked_for
from fastaniso.statistics.describe import describe
from fastaniso.statistics.metric import RAW, UNIT
from fastaniso.statistics.noise import standard_errors
from fastaniso.statistics.pairs import pair_statistics
from fastaniso.statistics.words import some_groups

FILES = {"scan": "scan.json", "measure": "measure.json"}
FORMAT_VERSION = 1

# What a site says in JSON beside the metrics asked for.
_VALUES = (
    *("mean_cosine", "cosine_std", "within_sequence", "across_sequences", "mean_cosine_without_top3"),
    *("drift", "norms", "isoscore", "participation_ratio", "effective_rank"),
)
# By another name in the catalogue.
_TWICE = {"dimension_contributions.without_top3"}


def load_run(folder: str | os.PathLike[str], *, name: str | None = None) -> Run:
    """Read what ``fastaniso scan`` or ``measure`` wrote to ``folder``: JSON and states. Nothing is measured again.

    Values are those of the JSON; every other linear and second-moment metric is computed from the state of the site,
    O(d³) each where it holds scatters. A folder without states gives what the JSON says, and ``missing`` tells.

    Args:
        folder: Where ``--out`` or ``result.save`` wrote.
        name: What to call the run: by default the folder's name.

    Raises:
        FileNotFoundError: There are no results in the folder.
        CorruptStateError: JSON or a state is damaged, or of another format.
    """
    folder = Path(folder)
    kind, content = _content(folder)
    missing: list[str] = []
    called = name or folder.resolve().name
    if kind == "scan":
        sites = tuple(_scan_sites(folder, content, missing))
        about: dict[str, Any] = {key: content[key] for key in ("model", "data") if key in content}
        pairs = None
    else:
        sites = (_site(folder, {"site": "vectors", "same_as": None, **content}, "", missing, sizes=(1, 1)),)
        about = {"data": ", ".join(content.get("data", ()))}
        pairs = _pairs(folder, content, missing)
    if content.get("complete") is False:
        missing.append("its end: it stopped early, and later sites may lack rows of the last batch")
    heads = content.get("attention") or {}
    about |= {key: content[key] for key in ("tokens", "seconds") if key in content}
    return Run(
        folder=folder,
        name=called,
        kind=kind,
        about=about,
        sites=sites,
        pairs=pairs,
        attentions=tuple(attentions_of(heads)),
        notes=tuple(dict.fromkeys((*content.get("notes", ()), *heads.get("notes", ())))),
        missing=tuple(dict.fromkeys(missing)),
        conventions={**content.get("conventions", {}), **heads.get("conventions", {})},
        provenance=content.get("provenance" if kind == "scan" else "made_from", {}),
    )


def _content(folder: Path) -> tuple[str, dict[str, Any]]:
    found = [kind for kind, name in FILES.items() if (folder / name).is_file()]
    if len(found) != 1:
        what = "both a scan and a measurement are" if found else "neither a scan nor a measurement is"
        raise FileNotFoundError(
            f"run: {what} in {folder}; expected a folder that fastaniso scan or measure --out wrote, "
            f"with {' or '.join(FILES.values())} in it"
        )
    (kind,) = found
    path = folder / FILES[kind]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sound = content["kind"] == kind and content["format"] == FORMAT_VERSION
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStateError(f"run: {path} is damaged ({error!r}); measure again") from error
    if not sound:
        raise CorruptStateError(f"run: {path} is a {content['kind']!r} of format {content['format']!r}, not {kind!r} 1")
    return kind, content


def _scan_sites(folder: Path, content: Mapping[str, Any], missing: list[str]) -> Iterator[RunSite]:
    longest = content.get("provenance", {}).get("max_length")
    read: dict[str, RunSite] = {}
    for site in content["sites"]:
        # A state is read once: what goes into a final norm has that of the last block.
        if site.get("same_as") in read:
            read[site["site"]] = _renamed(read[site["same_as"]], site["site"], site["same_as"])
        else:
            size = site["n"] / site["sequences"] if site.get("sequences") else math.nan
            sizes = (size, max(longest or size, size))
            read[site["site"]] = _site(folder, site, prefix_of(site["site"]), missing, sizes)
        yield read[site["site"]]


def _renamed(site: RunSite, name: str, same_as: str) -> RunSite:
    return RunSite(**{**vars(site), "site": name, "same_as": same_as})


def _site(
    folder: Path, content: Mapping[str, Any], stack: str, missing: list[str], sizes: tuple[float, float]
) -> RunSite:
    values = dict(_flat({name: content.get(name) for name in _VALUES} | content.get("metrics", {})))
    noise: dict[str, Noise] = {}
    eigenvalues = None
    state = _state(folder, content["site"], missing)
    if isinstance(state, Moments | Gram):
        able = (RAW, UNIT) if _has_both_scatters(state) else ()
        told = describe(state, invalid="omit", asked=asked_for("all", able, who="a report"))
        values = {name: value for name, value in _flat(told.metrics) if name not in _TWICE} | values
        eigenvalues = told.eigenvalues
    if isinstance(state, Gram) and _has_both_scatters(state):
        noise = _noise(state, values, sizes)
        if "mean_cosine" in noise and (error := _jackknife(folder, content["site"], state.moments)) is not None:
            noise["mean_cosine"] = Noise(noise["mean_cosine"].rows, error, error)
    elif state is not None:
        missing.append("the noise of its values and spectral scores: it was measured with gram=False")
    return RunSite(
        site=content["site"],
        stack=stack,
        same_as=content["same_as"],
        n=content["n"],
        dim=content["dim"],
        values=values,
        # null where no row was left that could be normalised.
        top_dimensions=tuple(
            (int(dimension), float(value)) for dimension, value in content["top_dimensions"] if value is not None
        ),
        noise=noise,
        eigenvalues=eigenvalues,
    )


def _state(folder: Path, site: str, missing: list[str]) -> Any:
    path = state_path(folder, site)
    if path.is_file():
        return load_state(path)
    missing.append("spectra, the noise of its values and further metrics: states are not in the folder")
    return None


def _has_both_scatters(state: Moments | Gram) -> bool:
    return isinstance(state, Gram) and state.scatter is not None and state.unit_scatter is not None


def _noise(gram: Gram, values: Mapping[str, float], sizes: tuple[float, float]) -> dict[str, Noise]:
    """``sizes`` are the mean and the largest number of rows of a sequence, 1 and 1 where rows come one by one."""
    size, largest = sizes
    excess = 0.0
    if largest != 1:
        excess = values.get("within_sequence", math.nan) - values.get("across_sequences", math.nan)
    errors = standard_errors(gram, size=size, largest=largest, excess=excess)
    names = ("mean_cosine", "drift.norm_of_mean", "drift.unit", "drift.relative", "norms.mean")
    found = {name: Noise(*error.tolist()) for name, error in zip(names, errors, strict=True)}
    return {name: noise for name, noise in found.items() if all(map(math.isfinite, noise))}


def _jackknife(folder: Path, site: str, moments: Moments) -> float | None:
    """Standard error of the mean cosine over the groups of sequences that a scan keeps; None without two of them."""
    path = state_path(folder, f"{site}.groups")
    groups = load_state(path) if path.is_file() else None
    if not isinstance(groups, GroupMoments):
        return None
    some = some_groups(groups, groups.counts > 0)
    if some.groups < 2:
        return None
    without = jackknife.left_out(jackknife.grouped(some, moments), moments, across=False)[1:]
    return float(jackknife.standard_error(without))


def _pairs(folder: Path, content: Mapping[str, Any], missing: list[str]) -> PairStatistics | None:
    if "pair_statistics" not in content:
        return None
    state = _state(folder, "pairs", missing)
    if not isinstance(state, Pairs):
        return None
    return pair_statistics(state, n=content["n"], dropped=Dropped(**content["dropped"]))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by name, those of a part after a point; what is null (nan, or not measured) and words are left out."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)
