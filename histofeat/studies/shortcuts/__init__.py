"""Shortcuts: what a label could be guessed from without looking at the tissue, and what a split by patch hides."""
