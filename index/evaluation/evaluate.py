"""Quality of an index, measured on what is known of its images: labels, or revisited ground truth."""

from pathlib import Path

from index.errors import UsageError
from index.evaluation.labelled import evaluate_labelled, read_labels
from index.evaluation.rankings import Options, Scores
from index.evaluation.revisited import evaluate_revisited, read_ground_truth
from index.search import open_searcher
from index.teachers.spec import TeacherSpec


def evaluate_by_name(
    index: Path,
    queries: Path,
    labels: Path | None,
    revisited: Path | None,
    teacher: TeacherSpec,
    device: str,
    options: Options,
) -> dict[str, Scores]:
    """`evaluate_labelled` or `evaluate_revisited`, with everything given by its name.

    `queries` is the CSV file of labelled queries, or the folder of the queries that the ground truth names;
    the teacher is as in `open_searcher`.

    Raises:
        UsageError: Both or neither of `labels` and `revisited` are given, or something cannot be opened.
        RetrievalError: As the two.
    """
    if labels and revisited:
        raise UsageError("--labels and --revisited do not go together. Give one of them.")
    if labels:
        known = read_labels(queries), read_labels(labels)
        return evaluate_labelled(open_searcher(index, teacher, device), *known, options)
    if revisited:
        truth = read_ground_truth(revisited)
        return evaluate_revisited(open_searcher(index, teacher, device), truth, queries, options)
    raise UsageError("Give --labels with a CSV file, or --revisited with ground truth as JSON.")
