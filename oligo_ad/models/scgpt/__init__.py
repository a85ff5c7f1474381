"""scGPT (Cui et al. 2024): checkpoint, tokens and network, without the published package."""
