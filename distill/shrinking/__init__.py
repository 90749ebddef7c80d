"""Take channels away from a student while it learns, after Capacity Dynamic Distillation."""
