"""Recipes with a name and a paper; one file each."""
