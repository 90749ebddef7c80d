"""Whether a student can stand in for its teacher: an estimate with its interval, and one sentence of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALONE, RERANKED = 0.8, 0.5  # of the teacher's top 10: enough to search alone, and enough to re-rank
CLOSE, NEAR = 0.02, 0.05  # of mAP that may be lost: by the student alone, and re-ranked
FEWEST, FEWEST_AMONG = 20, 50  # photos searched with, and images among them, that tell anything
WIDEST = 5 * CLOSE  # half of an interval of mAP that can tell such a loss
MODES = {"student": "the student's", "rerank": "re-ranked", "teacher": "the teacher's"}
HELD_OUT = "photos held out of training"
ADVICE = {
    "alone": "Use the student",
    "rerank": "Use the student with re-ranking",
    "more": "Give the student more answers",
    "few": "Too few queries to tell",
}


@dataclass(frozen=True)
class Estimate:
    """A mean of shares with its 95 % interval, over how many of what, among how many images, if known."""

    mean: float
    low: float
    high: float
    count: int
    population: str
    among: int = 0

    @classmethod
    def measure(cls, shares: NDArray[np.float64], population: str, among: int = 0) -> "Estimate":
        """Estimate the mean of `(n,)` shares of a population that was searched with, among so many images."""
        mean, interval = estimate_mean(shares)
        return cls(mean, *interval, len(shares), population, among)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> "Estimate":
        """Read the `agreement` of a run; one without an interval gets the widest that its mean allows."""
        mean, count = float(facts["overlap@10"]), int(facts["held_out"])
        error = 1.96 * math.sqrt(mean * (1 - mean) / count)
        low, high = facts.get("interval") or (max(mean - error, 0.0), min(mean + error, 1.0))
        population, among = str(facts.get("population", HELD_OUT)), int(facts.get("among", 0))
        return cls(mean, float(low), float(high), count, population, among)

    def __str__(self) -> str:
        return f"{100 * self.mean:.0f} % (95 %: {100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Verdict:
    """What to do (`alone`, `rerank`, `more`, or `few` to judge by), and why, in one sentence."""

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{ADVICE[self.kind]}: {self.reason}"


def estimate_mean(shares: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Estimate the mean of `(n,)` shares, and its 95 % confidence interval by Student's t."""
    mean, error = float(shares.mean()), half_width(shares)
    return mean, (max(mean - error, 0.0), min(mean + error, 1.0))


def half_width(values: NDArray[np.float64]) -> float:
    """Half of the 95 % confidence interval of the mean of `(n,)` values, by Student's t; of one, infinite."""
    from scipy.special import stdtrit

    n = len(values)
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf


def judge_agreement(found: Estimate) -> Verdict:
    """Judge by the agreement with the teacher alone; the mean decides, its interval is told."""
    kind = "alone" if found.mean >= ALONE else "rerank" if found.mean >= RERANKED else "more"
    if found.count < FEWEST or 0 < found.among < FEWEST_AMONG:
        kind = "few"
    among = f" among {found.among:,} images" if found.among else ""
    who = f"{found.count:,} {found.population}"
    return Verdict(kind, f"it finds {found} of the teacher's top 10{among}, measured on {who}.")


def tell_score(row: Mapping[str, float], name: str) -> str:
    """Write a score in percent, with half of its 95 % interval, if it has one."""
    width = row.get(f"{name} ±")
    return f"{100 * row[name]:.1f}" + ("" if width is None else f" ± {100 * width:.1f}")


def judge_labels(scores: Mapping[str, Mapping[str, float]]) -> Verdict:
    """Judge by labels: scores by mode, as of `evaluate_labelled`, student and teacher among them."""
    known = {name: scores[mode] for mode, name in MODES.items() if mode in scores}
    told = ", ".join(f"{name} {tell_score(row, 'mAP')}" for name, row in known.items())
    student, best = scores["student"], scores["teacher"]["mAP"]
    again = scores.get("rerank", student)["mAP"]
    kind = "alone" if best - student["mAP"] <= CLOSE else "rerank" if best - again <= NEAR else "more"
    if not all(row.get("mAP ±", math.inf) <= WIDEST for row in known.values()):  # one query has none
        kind = "few"
    return Verdict(kind, f"on your {student['queries']:,.0f} labelled queries mAP is {told} (95 %).")
