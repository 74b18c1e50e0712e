"""What earlier releases learned, proven and taken over."""
