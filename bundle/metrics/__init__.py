"""Figures of merit, each with a stated region and range."""
