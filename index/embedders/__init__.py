"""Models that map images to vectors: files, endpoints, callables, stored vectors."""
