"""Transforms between the scans on disk and the network's input."""
