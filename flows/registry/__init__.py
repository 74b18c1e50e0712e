"""Learned models as versions: packed, judged, asked, traced, and which of them is champion."""
