"""Stain normalisation: patches of all slides brought to the stain of the training patients, before any family."""
