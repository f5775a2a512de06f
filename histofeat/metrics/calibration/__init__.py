"""Do probabilities mean what they say, and what to do where they do not."""
