"""Tests of bundle.networks.baselines."""
