"""Scan every model of a list, one at a time, and keep each scan in a folder: ``layers`` and ``drift`` share them."""

from __future__ import annotations

import gc
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fastaniso
from fastaniso.paper.models.figures import FIGURES, NOT_IN_TRANSFORMERS, PAPER
from fastaniso.paper.models.list_file import CONTROL, Entry, default_list, read_list
from fastaniso.paper.models.loading import loaded
from fastaniso.paper.models.materials import Material, NothingToRead, material
from fastaniso.paper.options import Options, Size

LIMITS: dict[Size, dict[str, dict[str, Any]]] = {
    Size.smoke: {
        "text": {"max_tokens": 512, "max_length": 64},
        "images": {"max_items": 4},
        "sounds": {"max_items": 2, "max_seconds": 2.0, "batch_size": 2},
    },
    Size.small: {
        "text": {"max_tokens": 8192, "max_length": 128},
        "images": {"max_items": 64},
        "sounds": {"max_items": 16, "max_seconds": 8.0, "batch_size": 4},
    },
    Size.full: {"text": {"max_length": 512}, "images": {}, "sounds": {}},
}
"""How much is read of each kind of data, as ``fastaniso.scan`` takes it."""

_VALUES = {
    "mean_cosine": "mean_cosine",
    "within": "within_sequence",
    "across": "across_sequences",
    "drift": "drift.norm_of_mean",
    "relative_drift": "drift.relative",
    "norm": "norms.mean",
}

# What a model of somebody else's may end in: none of it ends the run.
_REASONS = (LookupError, OSError, ValueError, TypeError, AttributeError, ImportError, RuntimeError)


def measure(options: Options) -> dict[str, Any]:
    """A record of every model that can be scanned, and under "skipped" why each other one cannot."""
    entries = _entries(options)
    groups = [(entry, entry.control()) if entry.is_trained else (entry,) for entry in entries]
    records, skipped = _records(groups, options)
    skipped |= _not_tried({entry.model for entry in entries})
    return {"size": options.size.value, "models": records, "skipped": skipped}


def measure_trained(options: Options) -> dict[str, Any]:
    """The same of the trained models alone, without the untrained ones beside them."""
    records, skipped = _records([(entry,) for entry in _entries(options) if entry.is_trained], options)
    return {"size": options.size.value, "models": records, "skipped": skipped}


def _entries(options: Options) -> tuple[Entry, ...]:
    return read_list(options.models) if options.models else default_list(hub=options.size is Size.full)


def _records(groups: Iterable[tuple[Entry, ...]], options: Options) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records, and why others are missing: where one of a group cannot be scanned, none after it is tried."""
    records: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for group in groups:
        for each in group:
            try:
                records.append(_record(each, options))
            except _REASONS as error:
                skipped[each.name] = _reason(error)
                break
    return records, skipped


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0]
    return said if type(error) in (LookupError, NothingToRead) else f"{type(error).__name__}: {said}"


def _not_tried(tried: set[str]) -> dict[str, str]:
    """The paper's models that no line names, figure by figure."""
    reason = "of the paper, and not tried: --size full does, or a line of --models FILE that names it"
    left = {figure: [name for name, its in PAPER.items() if its == figure and name not in tried] for figure in FIGURES}
    return {", ".join(names): reason for names in left.values() if names} | NOT_IN_TRANSFORMERS


def _record(entry: Entry, options: Options) -> dict[str, Any]:
    """A model's figures, of the scan that is kept of it or of a new one."""
    reads = material(FIGURES[entry.figure].data, entry, options)
    folder = options.out / "scans" / _slug(entry.name)
    asked = _asked(entry, reads, options)
    note = folder / "asked.json"
    if not note.is_file() or note.read_text(encoding="utf-8") != asked:
        shutil.rmtree(folder, ignore_errors=True)
        options.say(f"scanning {entry.name}")
        _scan(entry, reads, options).save(folder, pictures=False)
        if entry.is_trained:
            gc.collect()  # a model that transformers loaded holds itself: it would stay beside the next
        # Last: a folder with this note is whole.
        note.write_text(asked, encoding="utf-8")
    return _told(entry, reads, fastaniso.load_run(folder, name=entry.name))


def _scan(entry: Entry, reads: Material, options: Options) -> Any:
    limits = LIMITS[options.size][FIGURES[entry.figure].data]
    given = loaded(entry, reads, options.size, options.device)
    return fastaniso.scan(data=reads.data, gram=False, invalid="omit", **given, **limits)


def _asked(entry: Entry, reads: Material, options: Options) -> str:
    """All that a scan depends on: where it is the same, the scan is."""
    weights: Any = entry.model
    if entry.family is None and Path(entry.source()).is_dir():
        weights = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in _files(entry.source())]
    about = {
        "fastaniso": fastaniso.__version__,
        "entry": {name: value for name, value in vars(entry).items() if name != "folder"},
        "weights": weights,
        "data": reads.stamp,
        "size": options.size.value,
        "limits": LIMITS[options.size],
    }
    return json.dumps(about, ensure_ascii=False)


def _files(folder: str) -> list[Path]:
    return sorted(file for file in Path(folder).iterdir() if file.is_file())


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _told(entry: Entry, reads: Material, run: Any) -> dict[str, Any]:
    tokens = run.about["tokens"]
    lines = [line for line in _lines(run) if any(x is not None for x in line["mean_cosine"])]
    if not lines:
        raise ValueError("none of its states could be normalised: they are zero, or hold NaN or Inf")
    return {
        "name": entry.name,
        "model": entry.model,
        "figure": entry.figure,
        "trained": entry.is_trained,
        "control_of": entry.name.removeprefix(CONTROL) if entry.untrained else None,
        "data": reads.said,
        "kind": FIGURES[entry.figure].data,
        "read": f"{tokens['kept']:,} {tokens['unit']} of {tokens['sequences']:,} {tokens['item']}",
        "parameters": run.provenance["parameters"],
        "lines": lines,
        "notes": list(run.notes),
    }


def _lines(run: Any) -> Iterator[dict[str, Any]]:
    """What is drawn as one line: a stack; all stacks in a row where they are stages of one, not encoder and decoder."""
    apart = set(run.stacks) == {"encoder.", "decoder."}
    correlations = run.drift_correlation(together=not apart)
    for stack, correlation in correlations.items():
        sites = run.stacks[stack] if apart else run.own_sites
        yield {
            "name": stack.rstrip(".") if apart else "",
            "sites": [site.site.removeprefix(stack) if apart else site.site for site in sites],
            "is_layer": [site.is_layer for site in sites],
            "dim": [site.dim for site in sites],
            **{name: [_finite(site.values.get(key)) for site in sites] for name, key in _VALUES.items()},
            "correlation": {key: _finite(value) for key, value in correlation._asdict().items()},
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
