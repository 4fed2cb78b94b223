"""What devices can do, and what a program asks of them."""
