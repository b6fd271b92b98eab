"""Tests of bundle.transforms."""
