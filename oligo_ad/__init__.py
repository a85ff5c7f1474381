"""oligo_ad: does a nucleus's gene expression tell whether its donor had Alzheimer's neuropathology?

Read `tasks/train.py` first: it is a whole run, top to bottom.
"""

__version__ = "0.1.0"
