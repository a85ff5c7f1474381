"""scGPT (Cui et al. 2024): its checkpoint, its genes, its input and its network, without its package."""
