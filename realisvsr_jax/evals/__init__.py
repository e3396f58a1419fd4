"""How good a restored clip is."""
