"""Tests of bundle.handlers."""
