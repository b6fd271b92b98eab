"""From DICOM to the input layout, and from results back to DICOM: see docs/dicom.md."""
