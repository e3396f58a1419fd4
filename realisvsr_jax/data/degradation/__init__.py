"""The two-order degradation: a plan (pure, serialisable), then its application."""
