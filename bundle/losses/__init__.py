"""Training objectives (Sec. 2.3 of the MSG-LDM paper)."""
