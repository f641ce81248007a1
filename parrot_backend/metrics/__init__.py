"""Metric definitions and their adapters: the core's records in, numbers for tools out."""
