"""Tests of bundle.inferers."""
