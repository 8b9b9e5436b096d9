"""Partitions in, committed files and events out."""
