"""A teacher that only ranks becomes one with vectors."""
