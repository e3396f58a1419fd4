"""Programs that other Python environments run: they import nothing of this package."""
