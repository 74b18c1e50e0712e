"""What is written to disk, and how it is found whole again: names that come last, digests, journals, no link followed."""
