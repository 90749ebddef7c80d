"""From sources to a gallery in Milvus: what it lacks is embedded into a journal, then sent.

The journal lies in a folder of this machine until all is on the server, so that a kill, of this run or of the
server, costs no more than the batches at hand.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from platformdirs import user_cache_path

from index.build.embed_missing import embed_missing
from index.build.journal import Journal
from index.build.pipeline import PROJECTED, Models, name_sources
from index.build.ray import RayCluster
from index.errors import RetrievalError, UsageError
from index.images.sources import Source, find_images
from index.io import content_digest, explain_disk
from index.progress import say
from index.stores.faiss_tuning import TunedIndex
from index.stores.folder import ERRORS, FORMAT
from index.stores.folder_writer import write_failures
from index.stores.metadata import PATH, join_metadata, read_rows
from index.stores.milvus.client import (
    FACTS,
    METRIC,
    TEXT,
    Address,
    check_schema,
    collection_name,
    connect,
    create_collection,
    explain,
    json_size,
)
from index.stores.milvus.collection import Collection, find_current
from index.stores.milvus.store import MilvusIndex
from index.stores.milvus.students import keep_student
from index.stores.milvus.tuning import QUERIES, choose_index, how_wide, serves, tune
from index.stores.milvus.writer import Sender, Written, read_stretches, write_all
from index.stores.options import DEFAULTS, IndexOptions, SearchTarget
from index.stores.records import Failure, Manifest, Space, as_facts
from index.teachers.spec import TeacherSpec
from index.vectors import Vectors

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MOST_METADATA = TEXT - 100  # bytes of an item's, with their names and room for what goes around them
TOGETHER = 10  # queries in one request while recall is measured: their answers may hold many whole vectors


@dataclass(frozen=True)
class Sent:
    """What a run did.

    Attributes:
        index: The gallery, opened.
        written: What it changed.
        failures: The images that were refused.
    """

    index: MilvusIndex
    written: Written
    failures: list[Failure]


def send_by_name(
    sources: Sequence[Source],
    model: Path,
    address: Address,
    teacher: TeacherSpec,
    device: str,
    work: Path | None = None,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> Sent:
    """`send_images`, with models given by name."""
    work = work or user_cache_path("retrieval") / "milvus" / content_digest(f"work {address}".encode())
    work.parent.mkdir(parents=True, exist_ok=True)
    return send_images(sources, Models.open(model, teacher, device), address, work, options, cluster)


def send_images(
    sources: Sequence[Source],
    models: Models,
    address: Address,
    work: Path,
    options: IndexOptions = DEFAULTS,
    cluster: RayCluster | None = None,
) -> Sent:
    """Bring images into a gallery. What is there by its content is neither embedded nor sent again.

    Another student's gallery of that name stays until the new one is complete; then the name means the new
    one, and whoever searches the old one goes on with it.

    Args:
        sources: As for `find_images`.
        models: What makes the vectors.
        address: Of the gallery.
        work: A folder of this machine that is new or empty, for the journal.
        options: What is wanted. Without `update` images are added, and nothing is removed.
        cluster: Where to embed; None does it here.

    Raises:
        UsageError: A source is wrong, a run is left that was not asked for, or what is there does not fit.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: The server fails for too long, no image could be read, or a model failed.
    """
    files, need, work = find_images(sources), options.target, work.absolute()
    metadata, update = options.metadata, options.update
    if metadata is not None:
        _require_short(metadata)
    client = connect(address)
    current = find_current(client, address)
    target = collection_name(address.name, models.student.key, "student", models.student.key)
    with explain(address):
        known = Collection(address, client, target) if client.has_collection(target) else None
    if update and current not in (None, target):
        raise UsageError(f"{address} was made with another student. Give that, or index without --update.")
    if known is not None:
        _require_same(known, models)
        for space, made in known.manifest.spaces.items():
            _make_ready(known, known.name(space), made.dim, need)
    with explain_disk(work), Journal(work) as journal:
        identity = models.identity | {"source": name_sources(sources), "gallery": str(address)}
        journal.start(identity, options.resume)
        if known is not None and known.count():
            journal.adopt(known)
        journal.list_files(files)
        embed_missing(files, models.embedders, journal, cluster)
        failures = list(journal.failures())
        total = sum(1 for _ in journal.items())
        if not total:
            first = failures[0]
            raise RetrievalError(
                f"None of {len(failures)} images could be read. The first: {first.path}: {first.reason}"
            )
        dims = {name: model.dim for name, model in models.embedders.items()}
        collection = known or _create(client, address, target, models)
        table = _join(journal, metadata)
        sender = Sender(collection)
        stretches = read_stretches(journal, list(collection.manifest.spaces), dims, models.projection, table)
        written = write_all(sender, stretches, total, replace_files=update)
        columns = sorted({*collection.columns, *(c for row in (table or {}).values() for c in row)})
        if known is None or written.any or current != target or not _is_finished(sender, need, columns):
            _finish(sender, need, columns)
    if current != target:
        _point(client, address, target, current)
    index = MilvusIndex(Collection(address, client, target), keep_student(models.student))
    _keep_failures(index.data, failures)
    return Sent(index, written, failures)


def _keep_failures(folder: Path, failures: list[Failure]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{ERRORS}.{os.getpid()}"
    write_failures(beside, failures)
    beside.replace(folder / ERRORS)


def _require_short(metadata: Path) -> None:
    """Refuse a CSV file with a row that no item of a collection can have."""
    header, rows = read_rows(metadata)
    for row in rows:
        if json_size(dict(zip(header, row, strict=True))) > MOST_METADATA:
            raise UsageError(
                f"{metadata} says more of {row[header.index(PATH)]} than the {MOST_METADATA} bytes that a "
                "collection takes. Shorten it."
            )


def _require_same(known: Collection, models: Models) -> None:
    """Refuse to mix vectors of several models."""
    wanted = _spaces(models)
    there = known.manifest.spaces
    if {name: space.key for name, space in there.items()} != {n: space.key for n, space in wanted.items()}:
        raise UsageError(
            f"{known.address} was made by {' and '.join(space.name for space in there.values())}, not by "
            f"{' and '.join(space.name for space in wanted.values())}. Give the same models, or another "
            "--collection."
        )


def _spaces(models: Models) -> dict[str, Space]:
    spaces = {name: Space(model.key, model.name, model.dim) for name, model in models.embedders.items()}
    if models.projection is not None:
        spaces[PROJECTED] = Space(models.projection.key, "teacher space", models.student.dim)
    return spaces


def _facts(manifest: Manifest, columns: Sequence[str]) -> dict[str, Any]:
    return {"manifest": as_facts(manifest), "columns": list(columns)}


def _create(client: "MilvusClient", address: Address, target: str, models: Models) -> Collection:
    """Make the collections, the student's last: where it is, the others are."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    teacher, spaces = models.teacher, _spaces(models)
    options = asdict(teacher.options) if teacher else {}
    manifest = Manifest(FORMAT, 0, created, [], 0, 0, 0, teacher.spec if teacher else None, options, spaces)
    with explain(address):
        for space, made in reversed(spaces.items()):
            name = collection_name(address.name, models.student.key, space, made.key)
            if client.has_collection(name):
                check_schema(name, client.describe_collection(name), made.dim, None)
            else:
                create_collection(client, name, made.dim, _facts(manifest, []))
            if not client.list_indexes(name):
                _build(client, name, "FLAT", {})
            client.load_collection(name)
    return Collection(address, client, target)


def _make_ready(known: Collection, name: str, dim: int, need: SearchTarget) -> None:
    """Have a collection loaded, with an index: a run may have been killed while it was built anew."""
    client = known.client
    with explain(known.address):
        if not client.describe_index(name, "vector"):
            rows = int(client.get_collection_stats(name)["row_count"])
            _build(client, name, *choose_index(max(rows, 1), dim, need))
        client.load_collection(name)


def _is_finished(sender: Sender, need: SearchTarget, columns: Sequence[str]) -> bool:
    """Whether `_finish` would change nothing: a run may have been killed before it, with all rows sent."""
    collection = sender.collection
    manifest, count = collection.manifest, sender.insist(collection.count)
    if (manifest.count, collection.columns) != (count, list(columns)):
        return False
    for space, made in manifest.spaces.items():
        there = sender.insist(
            lambda space=space: collection.client.describe_index(collection.name(space), "vector")  # type: ignore[misc]
        )
        if made.asked != need.recall or not serves(there, *choose_index(count, made.dim, need)):
            return False
    return True


def _build(client: "MilvusClient", name: str, kind: str, params: Mapping[str, Any]) -> None:
    wanted = client.prepare_index_params()
    wanted.add_index("vector", index_type=kind, metric_type=METRIC, params=dict(params))
    client.create_index(name, wanted)


def _finish(sender: Sender, need: SearchTarget, columns: Sequence[str]) -> None:
    """Have all on the server's disk, searched as is needed, and described."""
    collection = sender.collection
    client, count, spaces = collection.client, sender.insist(collection.count), {}
    for space, made in collection.manifest.spaces.items():
        name = collection.name(space)
        kind, params = choose_index(count, made.dim, need)

        def settle(name: str = name, kind: str = kind, params: Mapping[str, Any] = params) -> None:
            client.flush(name)
            there = client.describe_index(name, "vector")  # None if a server that failed has dropped it
            if not serves(there, kind, params):
                say(f"{name} is not searched while its index is built.")
                client.release_collection(name)
                client.drop_index(name, "vector")
                _build(client, name, kind, params)
            client.load_collection(name)  # which is not so either if the server failed here

        sender.insist(settle)
        served = sender.insist(lambda space=space, kind=kind: tune_space(collection, space, kind, need))  # type: ignore[misc]
        spaces[space] = replace(made, **asdict(served))
        short = f", not the {need.recall:g} asked for" if served.recall < need.recall else ""
        say(f"{space}: {served.factory}, recall@10 {served.recall:.3f}{short}.")
    manifest = replace(
        collection.manifest,
        generation=collection.manifest.generation + 1,
        count=count,
        spaces=spaces,
    )
    facts = {FACTS: json.dumps(_facts(manifest, columns))}
    sender.insist(lambda: client.alter_collection_properties(collection.student, facts))


def tune_space(collection: Collection, space: str, kind: str, need: SearchTarget) -> TunedIndex:
    """Find the least effort with which the index of a space meets a need, see `tune`."""
    name = collection.name(space)
    rows = collection.client.query(name, filter='digest >= ""', limit=QUERIES, output_fields=["vector"])
    queries = np.array([row["vector"] for row in rows], np.float32)

    def search(some: Vectors, k: int, params: Mapping[str, int]) -> Vectors:
        scores = np.full((len(some), k), -np.inf, np.float32)
        for start in range(0, len(some), TOGETHER):
            part = some[start : start + TOGETHER]
            for line, hits in enumerate(collection.search(space, part, k, params, how_wide(kind)), start):
                scores[line, : len(hits)] = [score for score, _ in hits]
        return scores

    return tune(kind, queries, search, need)


def _point(client: "MilvusClient", address: Address, target: str, current: str | None) -> None:
    """Let the name mean the new gallery, in one step."""
    with explain(address):
        if current is None:
            client.create_alias(target, address.name)
            return
        client.alter_alias(target, address.name)
    say(f"{current} is still there, for servers that search it. Drop it once none does.")


def _join(journal: Journal, metadata: Path | None) -> dict[str, dict[str, str]] | None:
    """Metadata by the item's digest."""
    if metadata is None:
        return None
    items = [item for item, _ in journal.items()]
    joined = join_metadata(metadata, [[(file.path, file.name) for file in item.files] for item in items])
    say(f"{metadata}: {joined.counts}.")
    by_path = {row.pop(PATH): row for row in joined.table.to_pylist()}
    return {item.digest: by_path[item.path] for item in items if item.path in by_path}
