"""Anybody's predictions on a published split, scored by the rules of our own: no image is opened."""
