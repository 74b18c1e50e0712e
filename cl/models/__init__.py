"""CLIP: loaded, asked, prompted and written; what a class name's row is."""
