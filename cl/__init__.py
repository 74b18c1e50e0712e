"""Evergreen's learning side: streams, methods, measurement. Talks to no server."""
