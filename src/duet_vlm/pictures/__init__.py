"""Drawings of what was kept."""
