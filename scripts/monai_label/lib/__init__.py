"""The parts of the MONAI Label app, one idea per file."""
