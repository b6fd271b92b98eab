"""Inferers that apply a network of slices to volumes."""
