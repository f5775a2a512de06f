"""BreakHis: the archive's names and tree, its copies and siblings, its published hold-outs, and a cohort like it."""
