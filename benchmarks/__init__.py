"""What a WebSocket costs: anyws and its peers, measured in turn. `python -m benchmarks` runs it."""
