"""The blind vote tab."""
