"""The MONAI Label app: a server that completes the exam of a scan which a client names."""
