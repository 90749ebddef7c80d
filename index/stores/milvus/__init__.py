"""A gallery in a Milvus server."""
