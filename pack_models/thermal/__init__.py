"""Temperatures of cells in packs."""
