"""From sources to an index: what has no vectors yet is embedded, then all of it is written in its order.

A run that goes on after it was killed, and one that brings an index up to date, differ from a new one only
in what has vectors when they begin.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from index.build.embed_missing import embed_missing
from index.build.journal import Journal
from index.build.ray import RayCluster
from index.build.unchanged import holds_just
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import FILE as TEACHER_SPACE
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError, UsageError
from index.images.file import readable
from index.images.sources import Source, find_images, source_name
from index.io import chunks, content_digest, explain_disk
from index.progress import say
from index.stores.faiss import check_factory
from index.stores.faiss_tuning import GIB, build_tuned, name_factory
from index.stores.folder import CHUNK, MANIFEST, Index
from index.stores.folder_writer import IndexWriter, remove_old
from index.stores.metadata import read_rows
from index.stores.options import AUTO, DEFAULTS, IndexOptions, SearchTarget
from index.stores.records import Item, Space
from index.teachers.spec import TeacherSpec
from index.vectors import Vectors

PROJECTED = "projected"


def index_by_name(
    sources: Sequence[Source],
    model: Path,
    out: Path,
    teacher: TeacherSpec,
    device: str,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> Index:
    """`build_index`, with everything given by its name; teacher space is taken from beside the student.

    Args:
        sources: As for `find_images`.
        model: The student's ONNX file.
        out: The index folder.
        teacher: Without a spec, the student indexes alone.
        device: `auto`, `cpu` or `cuda`.
        options: As in `build_index`.
        cluster: As in `build_index`.

    Raises:
        RetrievalError: As `build_index`, and where a model cannot be opened.
    """
    models = Models.open(model, teacher, device)
    return build_index(sources, models.student, out, models.teacher, models.space, options, cluster)


def build_index(
    sources: Sequence[Source],
    student: OnnxEmbedder,
    out: Path,
    teacher: Embedder | None = None,
    space: TeacherSpace | None = None,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> Index:
    """Embed images with one or two models and write the index folder.

    Args:
        sources: As for `find_images`.
        student: The model to search with; its file is kept in the index.
        out: The index folder. An index that is there stays until the new one is complete.
        teacher: The model to compare with. A paid one is asked about all images first, if the budget allows.
        space: Projects the teacher's vectors to the student's space, for asymmetric search.
        options: What is wanted. With `update` the result is that of a new index all the same.
        cluster: Where to embed; None does it here.

    Returns:
        The index, opened.

    Raises:
        UsageError: A source, `out` or the factory is wrong, a file of vectors lacks images, a run is left
            that was not asked for, it or the index was made with other models, or the index is damaged.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: No image could be read, a model failed, the disk is full, or another process writes.
    """
    files, out = find_images(sources), out.absolute()
    models = Models(student, teacher, space)
    if options.factory != AUTO:
        check_factory(options.factory, student.dim)
    if options.metadata is not None:
        read_rows(options.metadata)  # what is wrong with it shows before any work
    old = Index(out) if options.update or (out / MANIFEST).is_file() else None
    with explain_disk(out), Journal(out) as journal:
        # Whoever resumes what is complete loses nothing: it is looked through, as by an update.
        complete = options.resume and not journal.left and old and models.made(old)
        known = old if options.update or complete else None
        journal.start(models.identity | {"source": name_sources(sources)}, options.resume)
        if known is not None:
            models.require_made(known)
            known.require_whole(thorough=False)
            met = options.metadata is None and _is_met(options, known, known.metadata)
            if met and models.projected(known) and holds_just(known, files):
                remove_old(out, known.manifest.generation)  # of a run that was killed when it was done
                return known
        base = journal.adopt(known)
        if base is not None:
            models.require_made(base)
            base.require_whole()
        journal.list_files(files)
        embed_missing(files, models.embedders, journal, cluster)
        with IndexWriter(out, [source_name(source) for source in sources]) as writer:
            return _write(writer, journal, models, options, base)


def _is_met(options: IndexOptions, base: Index, table: pa.Table | None) -> bool:
    """Whether an index over the same items is searched as is wanted, and has these metadata."""
    return base.metadata == table and all(
        (space.factory, space.asked)
        == (name_factory(options.factory, len(base), space.dim, options.target), options.target.recall)
        for space in base.manifest.spaces.values()
    )


@dataclass(frozen=True)
class Models:
    """What makes the vectors of an index."""

    student: OnnxEmbedder
    teacher: Embedder | None
    space: TeacherSpace | None

    @classmethod
    def open(cls, model: Path, teacher: TeacherSpec, device: str) -> "Models":
        """Open models by their names; teacher space is taken from beside the student."""
        beside = model.with_name(TEACHER_SPACE)
        space = TeacherSpace.load(beside) if teacher.spec and beside.is_file() else None
        student = OnnxEmbedder(model, device, threads=1)
        return cls(student, teacher.open(device) if teacher.spec else None, space)

    @property
    def embedders(self) -> dict[str, Embedder]:
        """The models by name."""
        return {"student": self.student} | ({"teacher": self.teacher} if self.teacher else {})

    @property
    def projection(self) -> TeacherSpace | None:
        """What makes the projected space, if there is one."""
        fits = self.teacher and self.space and self.space.fits(self.teacher.dim, self.student.dim)
        return self.space if fits else None

    def projected(self, base: Index) -> bool:
        """Whether an index has the projected space that they make, if they make one."""
        has = base.manifest.spaces.get(PROJECTED)
        return self.projection is None or (has is not None and has.key == self.projection.key)

    @property
    def identity(self) -> dict[str, str]:
        """What a journal is to remember of them."""
        named = {name: f"{readable(model.name)} ({model.key})" for name, model in self.embedders.items()}
        return {"teacher": "none"} | named

    def made(self, base: Index) -> bool:
        """Whether they made an index."""
        made_by = {name: space.key for name, space in base.manifest.spaces.items() if name != PROJECTED}
        return made_by == {name: model.key for name, model in self.embedders.items()}

    def require_made(self, base: Index) -> None:
        """Refuse to update an index that others made, by name."""
        made_by = [name for name in base.manifest.spaces if name != PROJECTED]
        if set(made_by) != set(self.embedders):
            raise UsageError(
                f"{base.path} was made by {' and '.join(made_by)}, not by {' and '.join(self.embedders)}. "
                "Give the same models, or index without --update."
            )
        for name, model in self.embedders.items():
            base.require_model(name, model.key, model.name)


def _write(
    writer: IndexWriter, journal: Journal, models: Models, options: IndexOptions, base: Index | None
) -> Index:
    """Write all that the journal knows as an index, unless that is what the old one holds."""
    rows = array("q")

    def gallery() -> Iterator[Item]:
        for item, row in journal.items():
            rows.append(row)
            yield item

    writer.add_items(gallery())
    writer.add_failures(journal.failures())
    if not rows:
        first, *others = journal.failures()
        raise RetrievalError(
            f"None of {1 + len(others)} images could be read. The first: {first.path}: {first.reason}"
        )
    table = writer.carry_metadata(base) if base else None
    if options.metadata is not None:
        joined = writer.join_metadata(options.metadata)
        say(f"{options.metadata}: {joined.counts}.")
        table = joined.table
    if base is not None and writer.equals(base) and _is_met(options, base, table) and models.projected(base):
        remove_old(base.path, base.manifest.generation)
        return base
    if table is not None:
        writer.add_metadata(table)
    for name, model in models.embedders.items():
        dim = model.dim or _dim_in(base, name)
        chunks = journal.vectors(name, dim, rows, base)
        vectors = writer.add_space(name, Space(model.key, model.name, dim), chunks)
        add_search(writer, name, vectors, options.target, options.factory)
    if models.projection is not None:
        space = Space(models.projection.key, "teacher space", models.student.dim)
        projected = writer.add_space(PROJECTED, space, _project(vectors, models.projection))
        add_search(writer, PROJECTED, projected, options.target, options.factory)
    writer.add_model(models.student.data, Path(models.student.spec).parent)
    teacher = models.teacher
    return writer.commit(teacher.spec if teacher else None, asdict(teacher.options) if teacher else {})


def add_search(writer: IndexWriter, name: str, vectors: Vectors, need: SearchTarget, factory: str) -> None:
    """Make a space that was written searchable."""
    ann, served = build_tuned(vectors, need, factory)
    size = writer.add_ann(name, ann, served)
    say(f"{name}: {served}.")
    if size > need.memory * GIB:  # no kind of index is as small as that, or the factory was given
        say(f"{name}: its index takes {size / GIB:.2g} GiB, more than --memory {need.memory:g} allows.")


def _project(vectors: Vectors, space: TeacherSpace) -> Iterator[Vectors]:
    """Project by chunks of the final order: a sum may depend on what is multiplied together."""
    for some in chunks(vectors, CHUNK):
        yield space.project(some)


def _dim_in(base: Index | None, name: str) -> int:
    """The length of vectors of a teacher that does not say, and that nothing was asked of this time."""
    return base.manifest.spaces[name].dim if base else 0


def name_sources(sources: Sequence[Source]) -> str:
    """Name sources in a line, so that others have another name."""
    paths = [source_name(source) for source in sources]
    if len(paths) == 1:
        return paths[0]
    digest = content_digest("\0".join(paths).encode(errors="surrogateescape"))
    return f"{paths[0]} and {len(paths) - 1} more ({digest[:8]})"
