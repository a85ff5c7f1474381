"""Many runs: grids, searches, and their comparison."""
