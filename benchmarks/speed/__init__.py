"""Speed beside PyTorch: the same networks, weights and inputs, in turns on one machine."""
