"""Averages over patients, paired comparisons and tests; each says what it may be used for, and refuses the rest."""
