"""The grader "math": parsing and exact comparison of mathematical answers. No third-party imports at the start."""
