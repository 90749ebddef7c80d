"""Measure rankings, with labels or against the teacher."""
