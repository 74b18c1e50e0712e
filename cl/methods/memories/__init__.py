"""What of earlier data is kept; one file each."""
