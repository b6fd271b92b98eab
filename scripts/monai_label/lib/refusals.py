"""Faults of a request, each with its HTTP status."""

from __future__ import annotations

from bundle.errors import InputError


class UnknownImage(InputError):
    """There is no such image."""

    status = 404


class OutsideStudies(InputError):
    """The request names, or would write, something that is not in the studies folder."""

    status = 403


class Conflict(InputError):
    """What is asked for does not go with what is there."""

    status = 409


class NotNifti(InputError):
    """A file of another kind than NIfTI."""

    status = 415


def status_of(error: InputError) -> int:
    """The HTTP status of a fault: that of its class, or 422, "the request was understood, but cannot be done"."""
    return getattr(error, "status", 422)
