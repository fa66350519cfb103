"""Comparing designers with error bars."""
