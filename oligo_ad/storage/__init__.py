"""Files: atlases, matrices and what is kept of them; no biology."""
