"""Builders and drivers that several test folders use."""
