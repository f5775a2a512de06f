"""The audit of a split: shared patients, copies, siblings, contradictions, and what was fitted too early."""
