"""oligo_ad: can gene expression of single nuclei show whether their donor had Alzheimer's neuropathology?

Read `tasks/train.py` first: it is a whole run, top to bottom.
"""

__version__ = "0.1.0"
