"""Missing brain MRI contrasts, synthesised: the library of the bundle."""

__version__ = "0.1.0"
