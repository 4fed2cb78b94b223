"""Grading in separate processes, with a deadline for each answer."""
