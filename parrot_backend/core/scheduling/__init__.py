"""Ordering of ready requests and their placement on engines."""
