"""Networks, each from a Batch to one vector per nucleus; pool, fusion and head are shared by all."""
