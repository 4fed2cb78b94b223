"""What a run did, to look at: `curves.py` draws its curves, `page.py` makes one HTML page with its answers."""
