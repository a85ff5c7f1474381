"""Many runs: grids, searches, and what they say together."""
