"""Synthetic cohorts: drawn slides in the trees of IDC and BreakHis."""
