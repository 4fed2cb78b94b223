"""Sampling of answers inside the program."""
