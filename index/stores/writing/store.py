"""What a run makes of an index folder: the next one, unless it is what is there."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from index.errors import UsageError
from index.images.file import ImageFile
from index.progress import count, say
from index.stores.base import BuildReport, Content, StoreWriter
from index.stores.faiss.tuning import asked_factory, name_factory
from index.stores.faiss.vector_index import check_factory
from index.stores.folder import DIGESTS, LATER, MANIFEST, Index
from index.stores.metadata.join import PATH, Joined, join_items, join_metadata, read_rows
from index.stores.models import Models
from index.stores.options import AUTO, IndexOptions
from index.stores.records import Space
from index.stores.writing.difference import Difference
from index.stores.writing.later import Later, is_small
from index.stores.writing.writer import IndexWriter, remove_old


class FolderStore(StoreWriter):
    """An index folder, to be written."""

    def __init__(self, out: Path) -> None:
        """Take a folder; an index in it stays until the new one is complete."""
        self.index_folder, self.work = out, out.absolute()
        self._old: Index | None = None
        self._base: Index | None = None
        self._writer: IndexWriter | None = None
        self._found: Difference | None = None  # of the files, where a part of its own takes what is new
        self._joined: Joined | None = None  # metadata that say of what is known what was known
        self._gone = 0
        self._undo = ExitStack()

    def begin(self, models: Models, options: IndexOptions, sources: list[str]) -> None:
        """Check factory and metadata, and open the index that is there."""
        super().begin(models, options, sources)
        if options.factory not in (None, AUTO):
            check_factory(str(options.factory), models.student.dim)
        if options.metadata is not None:
            read_rows(options.metadata)  # what is wrong with it shows before any work
        if options.update or (self.work / MANIFEST).is_file():
            self._old = Index(self.work)

    def known(self, left: bool, adopted: bool) -> Index | None:
        """Find what an update takes over, or a run that goes on with one."""
        # Resuming what is complete loses nothing: it is looked through, as by an update.
        complete = self.options.resume and not left and self._old and self.models.made(self._old.manifest)
        if self.options.update or adopted or complete:
            base = self._old or Index(self.work)
            self.models.require_same(base.manifest, base)
            if base.manifest.spaces["student"].queries == self.models.student.key:
                return None  # the vectors are of the student before it: all are made again
            if (bits := base.manifest.spaces["student"].bits) != self.models.spaces["student"].bits:
                given = f"codes of {bits} bits: give --codes {bits}" if bits else "vectors: leave out --codes"
                raise UsageError(f"{base} holds {given}, or index without --update.")
            self._base = base
            for name, model in self.models.embedders.items():
                base.require_model(name, model.key, model.name)
        return self._base

    def is_current(self, files: Sequence[ImageFile]) -> bool:
        """Whether the index is of these files; if it is not as is wanted, it is written so at once."""
        base = self._base
        if base is None:
            return False
        base.require_whole(None)
        found = Difference.between(base, files)
        same, small = self.models.projected(base.manifest) and found.is_none, is_small(found)
        fits = self._is_met(base)
        if self.options.metadata is not None:
            fits = fits and (same or small) and self._knows(found, files)
        if same and fits:
            if self._joined:
                say(f"{self.options.metadata}: {self._joined.counts}.")
            remove_old(self.work, base.manifest.generation)  # of a run that was killed when it was done
            return True
        if fits and small and self.models.made(base.manifest):
            base.require_whole(LATER)  # no other file is written again
            self._found = found
            return False
        base.require_whole()
        if same:
            self.put(None)
        return same

    def wanted(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Choose what is to be looked into: all, or what is new to an index that only grows."""
        if self._found is None:
            return files
        say(f"{len(self._found.new)} of {count(len(files), 'image')} new or changed.")
        return [files[place] for place in self._found.new.values()]

    def _knows(self, found: Difference, files: Sequence[ImageFile]) -> bool:
        """Whether the metadata say of the files that an index has what it knows of them."""
        assert self.options.metadata is not None
        if not (before := found.index.tables):
            return False
        named = [(file.location, file.name) for file in files]
        items = defaultdict[int, list[tuple[str, str]]](list)
        for item, place in zip(found.items.tolist(), found.places.tolist(), strict=True):
            if place >= 0:
                items[item].append(named[place])
        try:
            new = ([named[place]] for place in found.new.values())
            joined = join_metadata(self.options.metadata, [*items.values(), *new])
        except UsageError:  # new copies of an image may bear one name; what else it may be shows later
            return False
        columns, there = before[0].column_names, found.paths.filter(pa.array(found.places >= 0))
        if set(columns) != set(joined.table.column_names):
            return False
        self._joined = replace(joined, table=joined.table.select(columns))
        known, told = (
            table.filter(pc.is_in(table[PATH], there.combine_chunks())).sort_by(PATH)
            for table in (pa.concat_tables(before), self._joined.table)
        )
        return known.equals(told)

    def _is_met(self, base: Index) -> bool:
        """Whether an index over the same items is searched as is wanted."""
        for space in base.manifest.spaces.values():
            target, factory = self.options.choose_target(space), self._choose_factory(space, base)
            named = name_factory(factory, base.first_part, space.dim, target, space.type)
            wanted = named, target.recall, self.options.choose_rescore(space, space)
            if (space.factory, space.asked, space.rescore) != wanted:
                return False
        return self.models.projected(base.manifest)

    def _choose_factory(self, before: Space | None, former: Index | None) -> str:
        """Choose a factory of a space: as given, or as a former index was asked for, or `auto`."""
        if self.options.factory is not None or before is None or former is None:
            return self.options.factory or AUTO
        if self.options.memory is not None and not before.given:  # what it chose was to fit into another
            return AUTO
        return asked_factory(before, former.first_part)

    def put(self, content: Content | None) -> None:
        """Write all beside the old index, unless that is what it holds; None takes its contents."""
        with ExitStack() as undo:
            writer = undo.enter_context(IndexWriter(self.work, self.sources))
            if self._fill(writer, content):
                self._writer, self._undo = writer, undo.pop_all()

    def _fill(self, writer: IndexWriter, content: Content | None) -> bool:
        base, options = self._base, self.options
        if base is not None and content is not None and self._found is not None:
            later = Later(self._found, content, self._joined and self._joined.table)
            if not later.is_new:
                remove_old(self.work, base.manifest.generation)
                return False
            self._gone = later.removed
            later.write(writer)
            if self._joined:
                left = later.count_without(self._joined.table)
                say(f"{options.metadata}: {replace(self._joined, items_left=left).counts}.")
            writer.add_model(self.models.student.data, Path(self.models.student.spec).parent)
            return True
        spaces: Mapping[str, Space]
        if content is not None:
            items, failures, spaces = content.items(), content.failures(), content.spaces
        else:
            assert base is not None
            items, failures, spaces = iter(base.items), iter(base.failures), base.manifest.spaces
        writer.add_items(items)
        writer.add_failures(failures)
        self._gone = writer.count_gone(base) if base else 0
        former = base or (self._old if options.update else None)
        table = writer.carry_metadata(former) if former else None
        if options.metadata is not None:
            table = join_items(options.metadata, writer.items).table
        if table is not None:
            writer.add_metadata(table)
        if base is not None and writer.has(DIGESTS, base) and self._is_met(base):
            if writer.equals(base):
                remove_old(self.work, base.manifest.generation)
                return False
            writer.take_vectors(base)  # files were moved or touched, or there are other metadata
            spaces = {}
        for name, made in spaces.items():
            known = base.read_rows if base else None
            rows = base.iter_rows(name) if base and content is None else content.vectors(name, known)  # type: ignore[union-attr]
            before = former.manifest.spaces.get(name) if former else None
            factory, target = self._choose_factory(before, former), options.choose_target(before)
            rescore = options.choose_rescore(made, before)
            space = replace(made, queries="", memory=target.memory, given=factory != AUTO, rescore=rescore)
            vectors = writer.add_space(name, space, rows)
            writer.add_search(name, vectors, target, factory, held=options.factory is None)
        writer.add_model(self.models.student.data, Path(self.models.student.spec).parent)
        return True

    def commit(self) -> BuildReport:
        """Put the new index in the place of the old one."""
        index, notes = self._base, []
        if (former := self._old) is not None and self._base is None:
            had = ["a teacher"] * ("teacher" in former.manifest.spaces and not self.models.teacher)
            had += ["metadata"] * (bool(former.columns) and self.options.metadata is None)
            if had:
                notes = [f"The index that was there had {' and '.join(had)}; this one was not given any."]
        with self._undo:
            if self._writer is not None:
                index = self._writer.commit(*self.models.teacher_spec)
        assert index is not None
        manifest = index.manifest
        files = f" in {len(index) + manifest.copies} files" if manifest.copies else ""
        summary = f"{self.index_folder}: {count(len(index), 'image')}{files}, {manifest.failed} refused."
        them = "it is back, --update adds it" if self._gone == 1 else "they are back, --update adds them"
        gone = f"{count(self._gone, 'image')} gone, and dropped. Once {them}."
        notes += [gone] * bool(self._gone)
        return BuildReport(index, summary, index.failures, tuple(notes))
