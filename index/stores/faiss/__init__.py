"""Vectors of an index folder, searched with FAISS."""
