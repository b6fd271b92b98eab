"""Ignite engines of the bundle's workflows."""
