"""Tests of bundle.data."""
