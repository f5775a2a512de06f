"""Features on disk: what a row is known by (`keys`), the file (`session`), the store (`feature_store`)."""
