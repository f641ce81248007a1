"""Engines: what runs a request. ``base`` is the seam; each other module is one way to do it."""
