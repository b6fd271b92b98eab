"""Tests of bundle.metrics."""
