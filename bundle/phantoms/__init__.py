"""Generated subjects: label maps of real heads, drawn anew and imaged by the signal equations."""
