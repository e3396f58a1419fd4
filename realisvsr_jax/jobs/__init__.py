"""A long restoration as a job: planned first, kept window by window, resumed after any end."""
