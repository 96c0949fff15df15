"""What a run needs and brings, before it is started: compute, memory, time; no torch."""
