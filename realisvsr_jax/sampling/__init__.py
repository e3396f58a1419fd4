"""From a bad clip to a restored one."""
