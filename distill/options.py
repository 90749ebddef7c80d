"""What to distil, and how: checked without loading torch."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from distill.training.recipes import Recipe
from index.embedders.base import Embedder
from index.errors import UsageError
from index.stores.folder import MANIFEST
from index.stores.records import RUN
from index.teachers.cost import check_price, share_for_queries

FEWEST = 2  # answers that a projection can be fitted to
SELECTIONS = ("kmeans", "kcenter", "random")
VARIANTS = ("fp16", "int8")
MOST_SEED = 2**31 - 1  # what FAISS takes
DEVICES = ("auto", "cpu", "cuda")
CHECKPOINT = "checkpoint.pt"
OURS = (RUN, CHECKPOINT)  # what tells a student folder, finished or not

UNITS = {"ms": " ms", "parameters": "M parameters", "mflops": " million multiply-adds"}
TARGET = re.compile(r"(\d+(?:\.\d*)?|\.\d+) *(ms|M|mflops)")


@dataclass(frozen=True)
class Target:
    """What a student may cost for one image in the end."""

    kind: str  # `ms` on one core of this machine, millions of `parameters`, or `mflops`
    value: float

    def __post_init__(self) -> None:
        if self.kind not in UNITS or not 0 < self.value < float("inf"):
            raise UsageError(f"--target-{self.kind} must be above 0, not {self.value:g}.")

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `1.5 ms`, `0.7M` for parameters or `40 mflops`; UsageError if it is something else."""
        if not (found := TARGET.fullmatch(text.strip())):
            raise UsageError(f"A target is as 1.5ms, 0.7M (parameters) or 40mflops, not {text!r}.")
        return cls({"M": "parameters"}.get(found[2], found[2]), float(found[1]))

    def __str__(self) -> str:
        return f"{self.value:.3g}{UNITS[self.kind]}"


LITE0 = "tf_efficientnet_lite0"
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"student": LITE0, "target": Target("mflops", 33)},
    "small": {"student": LITE0},
    "base": {"student": LITE0, "stages": 7, "size": 192},
}


@dataclass(frozen=True)
class Options:
    """What to distil."""

    budget: int = 500  # how many images the teacher may ever be asked about
    student: str = LITE0  # timm name of the backbone, or one of `PRESETS`
    weights: str = "auto"  # where its weights come from, as in `create_backbone`
    size: int = 0  # the student's input side, in pixels; 0 for that of the preset, or 128
    dim: int = 256  # length of the student's vectors
    select: str = "kmeans"  # which images the teacher is asked about, as in `order_by_worth`
    # Stages of the backbone to keep; None keeps those with a map of at least 1/16 of the image
    stages: int | None = None
    target: Target | None = None  # to which the student shrinks while it learns; None keeps it as it is
    device: str = "auto"  # `auto`, `cpu` or `cuda`
    bits: int = 0  # of the codes that the student answers with beside its vectors; 0 for none
    variants: tuple[str, ...] = ()  # smaller files to make of the student, as in `make_variants`
    steps: int | None = None  # training steps; None lets `steps_for` choose
    seed: int = 0  # random seed
    price: float | None = None  # what a thousand answers of the teacher cost, if it is known
    recipe: Recipe = field(default_factory=Recipe)  # the rest of how to train
    # Photos like those that will be searched with, as for `find_images`. Agreement is measured on some of
    # them, and decides, in place of photos of the pool.
    queries: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # photos to ask about before all others, as for `find_images`
    exclude: tuple[str, ...] = ()  # names that are left out of the pool, as for `find_images`
    helpers: tuple[str | Embedder, ...] = ()  # free networks that help to predict answers, open or as specs

    def __post_init__(self) -> None:
        object.__setattr__(self, "helpers", check_helpers(self.helpers))
        for name, value in PRESETS.get(self.student, {}).items():
            if name == "student" or getattr(self, name) == getattr(Options, name):  # what is given stays
                object.__setattr__(self, name, value)
        object.__setattr__(self, "size", self.size or 128)
        least = {"budget": FEWEST, "size": 32, "dim": 1, "stages": 1, "steps": 1, "seed": 0}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise UsageError(
                    f"--{name} must be at least {low}{' pixels' * (name == 'size')}, not {value}."
                )
        if self.seed > MOST_SEED:
            raise UsageError(f"--seed must be at most {MOST_SEED}, not {self.seed}.")
        for name, choices in {"select": SELECTIONS, "device": DEVICES}.items():
            if (value := getattr(self, name)) not in choices:
                raise UsageError(f"--{name} must be one of {', '.join(choices)}, not {value!r}.")
        if self.queries and share_for_queries(self.budget) < FEWEST:
            raise UsageError(
                f"A fifth of --budget goes to --queries, which needs {FEWEST} answers. Give --budget "
                f"{5 * FEWEST} or more, or leave out --queries."
            )
        if self.target and self.weights == "none":
            raise UsageError("A student of random weights cannot shrink. Leave out --weights or the target.")
        check_bits(self.bits, self.dim)
        check_variants(self.variants)
        check_price(self.price)
        find_weights(self.weights)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it for run.json; of helpers their specs."""
        helpers = tuple(one if isinstance(one, str) else one.spec for one in self.helpers)
        return {**asdict(replace(self, helpers=())), "helpers": helpers}


def check_helpers(given: str | Path | Sequence[str | Path | Embedder]) -> tuple[str | Embedder, ...]:
    """Keep each of some helpers, or of one, once; UsageError if one is nothing or may cost money."""
    several = [given] if isinstance(given, str | Path) else given
    kept = dict.fromkeys(str(one) if isinstance(one, str | Path) else one for one in several)
    for spec in [one for one in kept if isinstance(one, str)]:
        if not spec:
            raise UsageError("--helper takes an ONNX file, a file of vectors or file.py:function.")
        if spec.startswith(("http://", "https://")):
            raise UsageError(f"--helper sees every photo: {spec} may cost money. Give a file or a function.")
    return tuple(kept)


def check_student(name: str) -> None:
    """Raise UsageError unless timm has a network of that name; of the default that is known without timm."""
    if name == Options.student:
        return
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}. See timm.list_models().")


def check_bits(bits: int, dim: int, photos: int | None = None) -> None:
    """Raise UsageError unless codes of so many bits, 0 for none, fit so long vectors of so many photos."""
    if bits < 0 or bits % 8:
        raise UsageError(f"--bits must be a multiple of 8, such as 64, 128 or 256, not {bits}.")
    if bits > dim:
        raise UsageError(f"--bits {bits} is more than the student's {dim} dimensions. Give {dim // 8 * 8}.")
    if photos is not None and photos < bits:
        raise UsageError(f"Codes of {bits} bits need as many photos; here are {photos}. Give more.")


def check_variants(names: Sequence[str]) -> None:
    """Raise UsageError unless each is the name of a variant."""
    for name in names:
        if name not in VARIANTS:
            raise UsageError(f"No variant {name!r}. There are {', '.join(VARIANTS)}.")


def find_weights(weights: str) -> Path | None:
    """Find the file of weights; None for `auto` and `none`. Raises UsageError if it does not exist."""
    if weights in ("auto", "none"):
        return None
    if not (file := Path(weights)).is_file():
        raise UsageError(
            f"{weights} does not exist. Give --weights auto, none, or a .pth or .safetensors file."
        )
    return file


def check_out(out: Path) -> None:
    """Raise UsageError for a folder that no student can be written to, or that holds something else."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is a file. Give a folder as --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there} cannot be written. Give another folder as --out, or allow it.")
    if (out / MANIFEST).is_file():
        raise UsageError(f"{out} is an index. Give another folder as --out.")
    names = [entry.name for entry in out.iterdir()] if out.is_dir() else []
    # A run that was interrupted leaves its checkpoint, one of several students the folders of the first.
    ours = any(name in OURS or name.startswith(("budget-", "target-")) for name in names)
    if not ours and not all(".sqlite" in name for name in names):  # a ledger may lie there before
        raise UsageError(f"{out} is no student folder, and not empty. Give another folder as --out.")
