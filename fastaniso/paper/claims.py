"""What the paper claims, in sentences of our own, and how a run compares with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How what was measured compares with a claim."""

    holds = "holds"
    fails = "does not hold"
    untestable = "not testable here"


@dataclass(frozen=True)
class Claim:
    """One sentence that can be true or false, and where the paper has it ("§3.3, Figure 5")."""

    key: str
    where: str
    sentence: str


@dataclass(frozen=True)
class Finding:
    """The verdict on the claim ``key``, the figures or the reason it rests on, and the models it is of."""

    key: str
    verdict: Verdict
    because: str
    models: tuple[str, ...] = ()
