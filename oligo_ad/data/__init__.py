"""From an h5ad file to a cohort of nuclei, and to a contrast of its donors: labels, covariates, folds."""
