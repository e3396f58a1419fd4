"""Programs that move weights between PyTorch and releases, and encode prompts."""
