"""What devices can do, and what the program needs: data sheets, measured limits, memory and FLOPs."""
