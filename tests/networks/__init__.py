"""Tests of bundle.networks."""
