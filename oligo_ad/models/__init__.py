"""Networks: each maps a Batch to one vector per cell; fusion and head are written once."""
