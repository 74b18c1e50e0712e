"""Files as people have them become rows of one Arrow table; what cannot be used is told."""
