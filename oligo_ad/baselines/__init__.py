"""Baselines: simple predictors of donors on the same folds, and what is combined of them."""
