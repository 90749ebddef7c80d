"""The write side of a gallery in Milvus: what it lacks is upserted by its digest, which may be done twice.

The journal lies in a folder of this machine until all is on the server, so that a kill, of this run or of the
server, costs no more than the batches at hand.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from index.errors import RetrievalError, UsageError
from index.parallel import bounded_map
from index.progress import progress, say
from index.stores.base import Batch, BuildReport, Content, StoreWriter
from index.stores.faiss import tuning
from index.stores.faiss.tuning import TunedIndex
from index.stores.metadata.join import PATH, join_rows, read_rows
from index.stores.milvus import client as milvus
from index.stores.milvus.client import Address, Client
from index.stores.milvus.store import MilvusIndex, MilvusSpace, find_current, work_folder
from index.stores.models import Models
from index.stores.options import AUTO, IndexOptions, SearchTarget
from index.stores.records import FORMAT, Failure, Manifest, Space
from index.stores.server import FIELDS, Row, as_item, keep_student
from index.vectors import Scores

EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512)  # breadth of a graph, or lists to visit
HARDEST = 2048
MOST_GROWTH = 4
QUERIES = 200  # that recall is measured with
TOGETHER = 10  # of them in one request: their answers may hold many whole vectors
DEEP = 10  # times as many results as are wanted, of which the best are taken for the nearest there are


def choose_index(count: int, space: Space, target: SearchTarget) -> tuple[str, dict[str, Any]]:
    """Choose type and parameters of an index of so many vectors: exact while that is quick."""
    dim, room = space.dim, target.memory * tuning.GIB / count
    lists = {"nlist": tuning.count_lists(count)}
    exact = count * dim <= (tuning.EXACT_CODES if space.bits else tuning.EXACT_FLOATS) or target.recall == 1
    if space.bits:
        return ("BIN_FLAT", {}) if exact else ("BIN_IVF_FLAT", lists)
    if exact:
        return "FLAT", {}
    if count <= tuning.GRAPH_LIMIT and room >= 4 * dim + tuning.GRAPH_BYTES:
        return "HNSW", {"M": 32, "efConstruction": 128}
    if target.recall > tuning.CODES_REACH and room >= dim:
        return "IVF_SQ8", lists
    if room >= dim / 4:
        return "SCANN", lists | {"with_raw_data": "true"}  # the server takes no True
    parts = next(parts for parts in range(max(dim // 8, 1), 0, -1) if dim % parts == 0)
    return "IVF_PQ", lists | {"m": parts, "nbits": 8}


def serves(there: Mapping[str, Any] | None, kind: str, params: Mapping[str, Any]) -> bool:
    """Whether an index, as the server describes it, still does for what `choose_index` would choose now."""
    if there is None or there["index_type"] != kind:
        return False
    # Of a gallery that has grown, lists become long; up to so many times they are not worth a new index.
    return MOST_GROWTH * int(there.get("nlist", tuning.MAX_LISTS)) >= int(params.get("nlist", 0))


def tune(index: MilvusIndex, space: str, kind: str, target: SearchTarget) -> TunedIndex:
    """Find the least effort that reaches the recall, measured against what the most finds, and deeper."""
    if kind.endswith("FLAT") and "IVF" not in kind:
        return TunedIndex(kind, target.recall, 1.0, 0, 0, 0.0)
    k, made = tuning.DEPTH + 1, index.written.spaces[space]  # each query finds itself
    queries = index.sample_rows(space, QUERIES)

    def search(k: int, effort: int, together: int) -> Scores:
        searched = MilvusSpace(index, space, replace(made, factory=kind, probes=effort))
        parts = range(0, len(queries), together)
        return np.concatenate([searched.nearest(queries[i : i + together], k)[0] for i in parts])

    least = search(DEEP * k, HARDEST, 1)[:, k - 1 : k]
    if not np.isfinite(least).all():
        raise RetrievalError("The server finds too few of its vectors. Index again once it is at rest.")
    recall = 0.0
    for effort in EFFORTS:
        recall = float((search(k, effort, TOGETHER) >= least - 1e-5)[:, 1:].mean())
        if recall >= target.recall:
            break
    return TunedIndex(kind, target.recall, recall, effort, 0, 0.0)


T = TypeVar("T")
BYTES = 4 << 20  # of vectors in one request
MOST_ROWS = 1000  # in one request
LANES = 2  # requests at a time: one is made ready while the server takes another
PATIENCE = 300.0  # seconds that a server may take nothing before the run ends
PAUSE = 2.0  # seconds between two attempts
MOST_METADATA = milvus.TEXT - 50  # bytes of an item's, with all that goes around them


class MilvusWriter(StoreWriter):
    """Writes a gallery in Milvus. Another student's stays until it is complete; only `update` removes."""

    gallery: MilvusIndex

    def __init__(self, address: Address, work: Path | None = None) -> None:
        """Take an address, and a new or empty folder for the journal; None takes one in the cache folder."""
        self.address, self.identity = address, {"gallery": str(address)}
        self.work = work.absolute() if work else work_folder(address)
        self._is_cached = work is None
        self._new = self._changed = self._removed = 0
        self._failures: list[Failure] = []
        self._metadata: dict[str, dict[str, Any]] = {}  # of this run, by digest
        self._failed = False  # whether the server ever did

    def begin(self, models: Models, options: IndexOptions, sources: list[str]) -> None:
        """Reach the server, and have what is there ready to be searched."""
        super().begin(models, options, sources)
        if options.factory not in (None, AUTO):
            raise UsageError(
                "--factory is for FAISS. For a Milvus server give --recall and --memory instead."
            )
        if options.metadata is not None:
            _require_short(options.metadata)
        if self._is_cached:
            self.work.parent.mkdir(parents=True, exist_ok=True)
        self.client = Client(self.address)
        self._current = find_current(self.client)
        self._names = milvus.name_collections(self.address.name, models.spaces)
        self._student = self._names["student"]
        if options.update and self._current not in (None, self._student):
            raise UsageError(
                f"{self.address} was made with another student. Give that, or index without --update."
            )
        self._is_new = not self.client.has_collection(self._student)
        if self._is_new:
            return
        self.gallery = MilvusIndex(self.client, self._student)
        spaces = self.gallery.written.spaces
        if self.gallery.names != self._names:
            made_by, given = (" and ".join(s.name for s in some.values()) for some in (spaces, models.spaces))
            raise UsageError(
                f"{self.address} was made by {made_by}, not by {given}. Give the same models, or another "
                "--collection."
            )
        for space, made in spaces.items():
            name = self._names[space]
            rows = int(self.client.get_collection_stats(name)["row_count"])
            self.make_ready(name, made, *choose_index(max(rows, 1), made, options.choose_target(made)))

    @property
    def _is_replaced(self) -> bool:
        """Whether a table takes the place of the one before: what it does not say is known no more."""
        return self.options.update and self.options.metadata is not None

    def known(self, left: bool, adopted: bool) -> MilvusIndex | None:
        """Take all that is there as known, whatever is left of a run."""
        return self.gallery if not self._is_new and self.gallery.count() else None

    def put(self, content: Content) -> None:
        """Send what the server lacks or has otherwise; with `update`, drop what the run did not bring."""
        if self._is_new:
            self.gallery = self.create(content.spaces)
        if self.options.metadata is not None:
            self._metadata = join_rows(self.options.metadata, list(content.items()))
        most = max(space.dim for space in content.spaces.values())
        size = max(min(BYTES // (4 * most), MOST_ROWS), 1)
        kept = self.send(content.batches(size), content.count)
        if self.options.update:
            self._removed = self._drop_others(kept)
        self._failures = list(content.failures())

    def commit(self) -> BuildReport:
        """Have all indexed and on the server's disk, and let the name mean it."""
        self.finish()
        if self._current is None:
            self.client.create_alias(self._student, self.address.name)
        elif self._current != self._student:
            self.client.alter_alias(self._student, self.address.name)
            say(f"{self._current} is still there, for servers that search it. Drop it once none does.")
        index = MilvusIndex(self.client, self._student, keep_student(self.models.student))
        file = index.keep_failures(self._failures)
        listed = f", listed in {file}" if self._failures else ""
        counts = f"{self._new} new, {self._changed} changed, {self._removed} removed"
        summary = f"{self.address}: {len(index)} images: {counts}; {len(self._failures)} refused{listed}."
        return BuildReport(index, summary, self._failures)

    def create(self, spaces: Mapping[str, Space]) -> MilvusIndex:
        """Make the collections, the student's last: where it is, the others are."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        spaces = {n: replace(s, rescore=self.options.choose_rescore(s, None)) for n, s in spaces.items()}
        manifest = Manifest(FORMAT, 0, created, [], 0, 0, 0, *self.models.teacher_spec, spaces)
        for space, made in reversed(spaces.items()):
            if self.client.has_collection(name := self._names[space]):
                milvus.check_schema(self.client, name, made)
            else:
                milvus.create_collection(self.client, name, made, milvus.as_property(manifest, []))
            self.make_ready(name, made, *choose_index(1, made, self.options.choose_target(None)))
        return MilvusIndex(self.client, self._student)

    def send(self, batches: Iterable[Batch], total: int) -> set[str]:
        """Send batches, some at a time, at the server's pace, and return the digests of all items."""
        kept: set[str] = set()
        with progress(total, "send") as bar:
            for new, changed, digests in bounded_map(self._write, batches, LANES + 1, LANES):
                self._new, self._changed = self._new + new, self._changed + changed
                kept.update(digests)
                bar.update(len(digests))
        return kept

    def _write(self, batch: Batch) -> tuple[int, int, list[str]]:
        """Send what the server lacks or has otherwise; return how many are new and changed, and digests."""
        # Who has counted has waited for all that was written, and has it until the server starts again.
        level = "Strong" if self._failed else "Eventually"
        digests = [item.digest for item in batch.items]
        known = self._insist(self.gallery.fetch, "student", digests, FIELDS, level)
        rows = {}
        for item in batch.items:
            old = known.get(item.digest)
            facts = old["more"]["metadata"] if old and not self._is_replaced else {}
            whole = item
            if old and not self.options.update:  # in the files of both: what is known of one now counts
                was = as_item(old)
                whole = was.in_files({file.path: file for file in (*was.files, *item.files)}.values())
            rows[item.digest] = milvus.as_row(whole, self._metadata.get(item.digest, facts))
        different = [digest for digest, old in known.items() if rows[digest] != old]
        missing = [digest for digest in digests if digest not in known]
        if gone := len(set(missing) - set(batch.vectors.get("student", {}))):
            raise RetrievalError(
                f"{gone} images that were in {self.address} are gone from it. Start again, without --resume."
            )
        # The student's is the last: what it has, the others have.
        for space, made in reversed(self.gallery.written.spaces.items()) if different or missing else ():
            stored = self._insist(self.gallery.fetch, space, different, ["vector"], "Strong")
            before = milvus.read_vectors(made, stored.values())
            vectors = dict(zip(stored, before, strict=True)) | {d: batch.vectors[space][d] for d in missing}
            sent = [rows[d] | {"vector": v.tobytes() if made.bits else v} for d, v in vectors.items()]
            self.upsert(space, sent)
        return len(missing), len(different), digests

    def upsert(self, space: str, rows: list[Row]) -> None:
        """Send rows with their vectors, in the place of those of the same digest."""
        self._insist(self.client.upsert, self.gallery.names[space], rows, retry_times=0)

    def _insist(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        """Do what may be done twice until it succeeds, or has failed for too long."""
        end, complained = time.monotonic() + PATIENCE, False
        while True:
            try:
                return work(*args, **options)
            except RetrievalError as error:
                if isinstance(error, UsageError) or time.monotonic() > end:
                    raise
                if not complained:
                    say(f"{error} Trying again for {PATIENCE:.0f} seconds.")
                complained = self._failed = True
                time.sleep(PAUSE)

    def _drop_others(self, kept: set[str]) -> int:
        """Remove the items that are not among `kept`, and return how many the student's collection had."""

        def find(space: str) -> list[str]:
            return [row["digest"] for row in self.gallery.scan([], space) if row["digest"] not in kept]

        # The others may have more than the student's, of a run that was killed.
        gone = {space: self._insist(find, space) for space in self.gallery.written.spaces}
        for space, digests in gone.items():
            for some in milvus.among(digests):
                self._insist(self.client.delete, self.gallery.names[space], filter=some)
        return len(gone["student"])

    def make_ready(
        self, name: str, space: Space, kind: str, params: Mapping[str, Any], keep: bool = True
    ) -> None:
        """Have a collection indexed and loaded; `keep` leaves it any index that it has."""
        there = self.client.describe_index(name, "vector")  # None if a run ended before
        if not there or not (keep or serves(there, kind, params)):
            if there:
                say(f"{name} is not searched while its index is built.")
                self.client.release_collection(name)
                self.client.drop_index(name, "vector")
            wanted = self.client.prepare_index_params()
            metric = milvus.METRICS[space.metric]
            wanted.add_index("vector", index_type=kind, metric_type=metric, params=dict(params))
            self.client.create_index(name, wanted)
        self.client.load_collection(name)

    def finish(self) -> None:
        """Have all on the server's disk, searched as is wanted, and described; what is so already stays."""
        gallery, spaces = self.gallery, dict[str, Space]()
        former = () if self._is_replaced else gallery.columns
        columns = sorted({*former}.union(*self._metadata.values()))
        count = self._insist(gallery.count)
        same = not (self._new or self._changed or self._removed)
        # A run may have been killed before this, with all rows sent.
        same = same and (gallery.written.count, list(gallery.columns)) == (count, columns)
        for space, made in gallery.written.spaces.items():
            target = self.options.choose_target(made)
            name, index = gallery.names[space], choose_index(count, made, target)
            there = self._insist(self.client.describe_index, name, "vector")
            rescore = self.options.choose_rescore(made, made)
            asked = replace(made, asked=target.recall, memory=target.memory, rescore=rescore)
            if same and made == asked and serves(there, *index):
                continue
            self._insist(self.client.flush, name)
            self._insist(self.make_ready, name, made, *index, keep=False)
            served = self._insist(tune, gallery, space, index[0], target)
            spaces[space] = replace(asked, **asdict(served))
            say(f"{space}: {served}.")
        if spaces:
            spaces, generation = {**gallery.written.spaces, **spaces}, gallery.written.generation + 1
            manifest = replace(gallery.written, generation=generation, count=count, spaces=spaces)
            told = milvus.as_property(manifest, columns)
            self._insist(self.client.alter_collection_properties, gallery.student, told)


def _require_short(metadata: Path) -> None:
    """Refuse a CSV file with a row that no item of a collection can have."""
    header, rows = read_rows(metadata)
    for row in rows:
        if milvus.json_size(milvus.describe(dict(zip(header, row, strict=True)))) > MOST_METADATA:
            raise UsageError(
                f"{metadata} says more of {row[header.index(PATH)]} than the {MOST_METADATA} bytes that a "
                "collection takes. Shorten it."
            )
