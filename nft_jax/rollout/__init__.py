"""Generation inside the program."""
