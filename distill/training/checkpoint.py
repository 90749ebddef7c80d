"""The state of an interrupted training, from which it goes on as if nothing had happened."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.errors import RetrievalError


@dataclass
class Progress:
    """How far training has come."""

    losses: list[float] = field(default_factory=list)  # of each step so far
    # At each check the number of steps, and the share of the teacher's first places that the student returns
    # for held-out images
    agreement: list[tuple[int, float]] = field(default_factory=list)
    kept: int = 0  # number of steps of the weights that are the best so far
    best: dict[str, Tensor] = field(default_factory=dict)  # those weights
    since: int = 0  # how many of the checks were of a student with other channels, and do not compare

    @property
    def noted(self) -> bool:
        """Whether scores were noted since the last step."""
        return bool(self.agreement) and self.agreement[-1][0] == len(self.losses)

    def note(self, scores: NDArray[np.float64], weights: Mapping[str, Tensor]) -> None:
        """Note `(held-out images,)` scores; keep copies of the weights unless clearly worse than the best.

        Held-out images are few, so that the highest score is often luck: of those that cannot be told from
        it, the latest is kept (the one-standard-error rule of Breiman et al. 1984).
        """
        score, error = float(scores.mean()), float(scores.std() / np.sqrt(len(scores)))
        steps = len(self.losses)
        self.agreement.append((steps, score))
        if score >= max(value for _, value in self.agreement[self.since :]) - error:
            self.kept = steps
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def start_over(self) -> None:
        """Forget the best weights: the student has lost channels."""
        self.best, self.since = {}, len(self.agreement)


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a run is kept: of modules, optimizers and the like, by name."""

    path: Path  # the file
    run: str  # what the state belongs to: a digest of the options, the images and the answers

    def forget(self) -> None:
        """Delete the state, if any is kept."""
        self.path.unlink(missing_ok=True)

    def save(self, done: Progress, parts: Mapping[str, Any]) -> None:
        """Write the state beside its place, then rename it; RetrievalError if the disk does not take it."""
        state = {
            "run": self.run,
            "done": asdict(done),
            "random": torch.get_rng_state(),
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        data, partial = BytesIO(), self.path.with_suffix(".partial")
        torch.save(state, data)  # to a file itself it would hide what is wrong with the disk
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data.getbuffer())
            partial.replace(self.path)
        except OSError as error:
            reason = f"{self.path} cannot be written: {error.strerror}"
            raise RetrievalError(
                f"{reason}. Mend that, then run the same again: answers are kept."
            ) from error

    def read(self) -> dict[str, Any] | None:
        """Read a run's state; None where there is none, or it is another run's."""
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            return state if state["run"] == self.run else None
        except Exception:  # no file, half of one, or none of ours: torch raises many kinds
            return None

    def restore(self, state: Mapping[str, Any], parts: Mapping[str, Any]) -> Progress:
        """Put a state that was read back into its parts."""
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["random"])
        return Progress(**state["done"])
