"""What to distil, and how: checked without loading torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.training.recipes import Recipe
from index.errors import UsageError
from index.teachers.cost import check_price

FEWEST = 2  # answers that a projection can be fitted to
SELECTIONS = ("kmeans", "kcenter", "random")
VARIANTS = ("fp16", "int8")
DEVICES = ("auto", "cpu", "cuda")

UNITS = {"ms": " ms", "parameters": "M parameters", "mflops": " million multiply-adds"}


@dataclass(frozen=True)
class Target:
    """What a student may cost for one image in the end."""

    kind: str  # `ms` on one core of this machine, millions of `parameters`, or `mflops`
    value: float

    def __post_init__(self) -> None:
        if self.kind not in UNITS or not 0 < self.value < float("inf"):
            raise UsageError(f"--target-{self.kind} must be above 0, not {self.value:g}.")

    def __str__(self) -> str:
        return f"{self.value:.3g}{UNITS[self.kind]}"


@dataclass(frozen=True)
class Options:
    """What to distil."""

    budget: int = 500  # how many images the teacher may ever be asked about
    student: str = "tf_efficientnet_lite0"  # timm name of the backbone
    weights: str = "auto"  # where its weights come from, as in `create_backbone`
    size: int = 128  # the student's input side, in pixels
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
    exclude: tuple[str, ...] = ()  # names that are left out of the pool, as for `find_images`

    def __post_init__(self) -> None:
        least = {"budget": FEWEST, "size": 32, "dim": 1, "stages": 1, "steps": 1, "seed": 0}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise UsageError(
                    f"--{name} must be at least {low}{' pixels' * (name == 'size')}, not {value}."
                )
        for name, choices in {"select": SELECTIONS, "device": DEVICES}.items():
            if (value := getattr(self, name)) not in choices:
                raise UsageError(f"--{name} must be one of {', '.join(choices)}, not {value!r}.")
        check_bits(self.bits, self.dim)
        check_variants(self.variants)
        check_price(self.price)
        find_weights(self.weights)


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
