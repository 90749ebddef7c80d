"""The tab with a map of all photos."""
