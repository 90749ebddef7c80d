"""The student network: backbone, weights, export, smaller files."""
