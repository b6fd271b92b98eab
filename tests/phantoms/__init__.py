"""Tests of bundle.phantoms."""
