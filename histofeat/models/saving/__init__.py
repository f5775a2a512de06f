"""Models on disk: a fitted pipeline as one file that holds data only, and what it learnt from."""
