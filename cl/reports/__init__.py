"""What was found, as items for a tracker and as pages to read."""
