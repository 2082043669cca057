"""Kunin et al. 2020, Two Routes to Scalable Credit Assignment without Weight Symmetry."""
