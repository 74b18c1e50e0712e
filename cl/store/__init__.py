"""Learned states on disk: their names, their weights, and the way back to a method."""
