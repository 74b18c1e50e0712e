"""What a model learned, was refused and skipped, in order; and what follows from it."""
