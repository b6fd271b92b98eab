"""Tests of bundle.engines."""
