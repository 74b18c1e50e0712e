"""What of the site is made from the code: a page per preset and part, the settings, the API, the notebooks, the figures."""
