"""What the server counts and times, for Prometheus. One set for the process, as its client keeps it."""

from index.errors import needs

with needs("demo"):
    from prometheus_client import Counter, Histogram

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

STAGES = Histogram(
    "retrieval_stage_seconds",
    "Time that one search spends in a stage: decode, wait (for a free lane), embed, search.",
    ["stage", "mode"],
    buckets=SECONDS,
)
FAILED = Counter("retrieval_failed_searches_total", "Searches that brought an error, by mode.", ["mode"])
ANSWERS = Counter("retrieval_answers_total", "Answers over HTTP, by route and status.", ["route", "status"])
