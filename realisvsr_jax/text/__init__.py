"""Prompts to text states."""
