"""Reading and writing files: atlases, matrices, tables, locks and checksums; no biology."""
