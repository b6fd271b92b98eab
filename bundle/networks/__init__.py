"""Networks of MSG-LDM: tensors in, tensors out; they know no files and no training loops."""
