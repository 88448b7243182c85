"""Multiple-instance learning: bags of tiles in, log hazards out.

Import what you need from the modules; this file stays empty so that settings can be read without loading torch.
"""
