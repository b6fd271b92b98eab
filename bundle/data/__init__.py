"""What goes in: contrasts, subjects and their files, labels, splits, generated subjects."""
