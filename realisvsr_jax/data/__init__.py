"""From sources to degraded pairs in batches."""
