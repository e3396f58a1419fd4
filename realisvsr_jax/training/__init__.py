"""State, step, checkpoint, loop."""
