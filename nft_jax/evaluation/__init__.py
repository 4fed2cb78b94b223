"""Held-out evaluation: answers to problems, and their scores."""
