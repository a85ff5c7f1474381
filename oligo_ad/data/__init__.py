"""From an h5ad file to chosen nuclei, their donors' labels, and whole-donor folds."""
