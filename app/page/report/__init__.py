"""The report tab."""
