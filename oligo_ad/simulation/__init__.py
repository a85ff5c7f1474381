"""The simulated atlas and its parameters."""
