"""Servers as child processes on loopback, who may ask them, and how they end with us."""
