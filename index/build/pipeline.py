"""From sources to a gallery: what has no vectors yet is embedded, then a store takes all in its order.

A run that goes on after it was killed, and one that brings a gallery up to date, differ from a new one only
in what has vectors when they begin.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from index.build.embed_missing import embed_missing
from index.build.journal import Journal
from index.build.openvino import choose_runtime
from index.build.ray import RayCluster, open_cluster
from index.build.taught import TAUGHT, Taught
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.errors import RetrievalError, UsageError
from index.images.sources import Source, find_images, source_name
from index.io import content_digest, explain_disk
from index.progress import count, say
from index.stores.base import Batch, BuildReport, RowReader, Store, StoreWriter
from index.stores.folder import STUDENT, Index
from index.stores.models import PROJECTED, Models
from index.stores.options import DEFAULTS, IndexOptions
from index.stores.records import Failure, Item, Space
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec
from index.vectors import Vectors

MANY = 20  # times as many images as are given are too many to be read from a server
LOOKED_AT = 4096  # images of a gallery at most, to tell whether they are far from what was taught
STRANGE = 0.3  # share of far images from which on it is said; of the taught photos a tenth are


def build(
    sources: Sequence[Source],
    models: Models,
    store: StoreWriter,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> BuildReport:
    """Embed images, as `find_images` lists them, here or on a cluster, and bring them into a store.

    What was searched before is, until all is complete. A paid teacher is asked if the budget does for all.

    Raises:
        UsageError: A source or an option is wrong, a file of vectors lacks images, a run is left that was not
            asked for, it or the gallery was made with other models, or the gallery is damaged.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: No image could be read, a model or the store failed, or another process writes.
    """
    files = find_images(sources, options.exclude, whole=options.update)
    store.begin(models, options, [source_name(source) for source in sources])
    with explain_disk(store.work, "go on with --resume"), Journal(store.work) as journal:
        identity = models.identity | {"source": name_sources(sources)} | dict(store.identity)
        left = journal.start(identity, options.resume)
        known = store.known(left, journal.adopted)
        if not store.is_current(files):
            wanted = store.wanted(files)
            if known is not None:
                # What a server has, of which a few files can be some, is asked for a file at a time.
                few = known.remote and not options.update and MANY * len(files) < len(known)
                journal.adopt(known, as_met=few or len(wanted) < len(files))
            journal.list_files(wanted)
            embed_missing(wanted, models.embedders, journal, cluster)
            content = JournalContent(journal, models, known)
            if not content.count and len(wanted) == len(files):
                first, *others = journal.failures()
                images = count(1 + len(others), "image")
                raise RetrievalError(
                    f"None of {images} could be read. The first: {first.path}: {first.reason}"
                )
            store.put(content)
        report = _note_failures(store.commit())
    teacher = models.teacher
    if teacher is None or not teacher.dim or not (teacher.remarks or teacher.calls.paid):
        return report  # of a teacher that has never answered nothing is known
    line = f"Teacher {teacher.name}: vectors of {teacher.dim} numbers{teacher.remarks}."
    return replace(report, summary=f"{report.summary}\n{line}")


def _note_failures(report: BuildReport) -> BuildReport:
    if not (kinds := Counter(failure.reason.partition(":")[0] for failure in report.failures)):
        return report
    refused = ", ".join(f"{times} {kind}" for kind, times in kinds.most_common())
    line = (
        f"{count(len(report.store), 'image')} indexed, {kinds.total()} refused: {refused}. "
        "Mend them, then give --update, or leave them out with --exclude."
    )
    return replace(report, notes=(*report.notes, line))


def build_index(
    sources: Sequence[Source],
    student: OnnxEmbedder,
    out: Path,
    teacher: Embedder | None = None,
    space: TeacherSpace | None = None,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> Index:
    """`build` an index folder, which keeps the student's file; after `update` it is as a new one would be."""
    store = build(sources, Models(student, teacher, space), FolderStore(out), options, cluster).store
    assert isinstance(store, Index)
    return store


def build_by_name(
    sources: Sequence[Source],
    model: Path,
    store: StoreWriter,
    teacher: TeacherSpec,
    device: str,
    options: IndexOptions = DEFAULTS,
    ray: str | None = None,
) -> BuildReport:
    """`build` with models and a Ray cluster given by name; teacher space is taken from beside the student.

    The model is a student's file, or its folder.
    """
    model = model / STUDENT if model.is_dir() else model
    with nullcontext() if ray is None else open_cluster(ray, device) as cluster:
        student = OnnxEmbedder(model, device, 1, options.codes)
        runtime = choose_runtime(student) if device == "openvino" and not ray else ""
        beside = model.with_name(TEACHER_SPACE)
        projects = teacher.spec and beside.is_file() and not options.codes
        space = TeacherSpace.load(beside) if projects else None
        models = Models(student, teacher.open(device) if teacher.spec else None, space)
        report = build(sources, models, store, options, cluster)
    if runtime:
        report = replace(report, notes=(*report.notes, runtime))
    if (notes := model.with_name(TAUGHT)).is_file() and not options.codes:
        try:
            warn_of_far(report.store, Taught.load(notes), model.parent)
        except UsageError as reason:  # the index is written, whatever lies beside the student
            say(str(reason))
    return report


def warn_of_far(store: Store, taught: Taught, student: Path) -> None:
    """Say how many images of a gallery, or of a sample, are far from all that its student was taught on."""
    if taught.vectors.shape[1] != store.manifest.spaces["student"].dim:
        raise UsageError(f"{student / TAUGHT} is of another student: it does not tell what images are far.")
    far = taught.are_far(np.asarray(store.sample_rows("student", LOOKED_AT), np.float32))
    if far.mean() > STRANGE:
        count = f"{far.sum()}" if len(far) == len(store) else f"About {round(far.mean() * len(store))}"
        say(
            f"Warning: {count} of {len(store)} images are far from all that the student was taught on: "
            f"expect poor results. Teach it some: retrieval distill IMAGES --continue {student} --budget 100."
        )


def name_sources(sources: Sequence[Source]) -> str:
    """Name sources in a line, so that others have another name."""
    paths = [source_name(source) for source in sources]
    if len(paths) == 1:
        return paths[0]
    digest = content_digest("\0".join(paths).encode(errors="surrogateescape"))
    return f"{paths[0]} and {len(paths) - 1} more ({digest[:8]})"


class JournalContent:
    """All that a journal holds, once everything is embedded, and what it has adopted as known."""

    def __init__(self, journal: Journal, models: Models, known: Store | None) -> None:
        self.journal, self.models, self.known = journal, models, known
        self.count = journal.count_items()
        self._rows = array("q")  # of the vectors of the items that were yielded

    @cached_property
    def spaces(self) -> Mapping[str, Space]:
        """The vectors that there are. A teacher of which nothing was asked this time may not say how long."""
        there = self.known.manifest.spaces if self.known else {}
        return {
            name: space if space.dim else replace(space, dim=there[name].dim)
            for name, space in self.models.spaces.items()
        }

    def items(self) -> Iterator[Item]:
        """Yield all items."""
        del self._rows[:]
        for item, row in self.journal.items():
            self._rows.append(row)
            yield item

    def failures(self) -> Iterator[Failure]:
        """Yield the images that were refused."""
        return self.journal.failures()

    def vectors(self, space: str, known: RowReader | None = None) -> Iterator[Vectors]:
        """As `Content.vectors`."""
        return self._gather(space, self._rows, known)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield so many items at a time, with the vectors that this run embedded."""
        found = self.journal.items()
        while part := list(islice(found, size)):
            own, vectors = {item.digest: row for item, row in part if row >= 0}, {}
            for space in self.spaces if own else ():
                made = (row for some in self._gather(space, [*own.values()]) for row in some)
                vectors[space] = dict(zip(own, made, strict=True))
            yield Batch([item for item, _ in part], vectors)

    def _gather(
        self, space: str, rows: "array[int] | list[int]", known: RowReader | None = None
    ) -> Iterator[Vectors]:
        projection = self.models.projection if space == PROJECTED else None
        source = "teacher" if projection else space
        gathered = self.journal.vectors(source, self.spaces[source], rows, known)
        # By parts of the final order: a sum may depend on what is multiplied together.
        return map(projection.project, gathered) if projection else gathered
