"""What a run makes of an index folder."""
