"""From the cohort's counts to batches that a network reads."""
