"""Let a later student embed the queries of an index whose vectors an earlier one made."""

from pathlib import Path

from index.build.journal import Journal
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.io import explain_disk
from index.stores.folder import Index
from index.stores.folder_writer import IndexWriter


def replace_student(path: Path, student: OnnxEmbedder) -> Index:
    """Put a student in the place of the one that embeds queries. No image is read and no vector changed.

    It was taught to stay in the space of the one that made the index.

    Raises:
        UsageError: There is no index, a damaged one, an unfinished run, or vectors of another length.
        RetrievalError: Another process writes the index, or the disk is full.
    """
    index = Index(path)
    if (dim := index.manifest.spaces["student"].dim) != student.dim:
        raise UsageError(
            f"{index} holds vectors of length {dim}; those of {student.name} have {student.dim}."
        )
    with explain_disk(path), Journal(path) as journal:
        journal.start({}, resume=False)
        index.require_whole()
        with IndexWriter(index.path, index.manifest.sources) as writer:
            writer.take_over(index)
            writer.embed_queries_with(student)
            return writer.commit(index.manifest.teacher, index.manifest.teacher_options)
