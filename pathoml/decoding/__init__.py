"""From slides to uint8 tiles in memory, here or in processes of their own; loads no torch.

Import what you need from the modules; this file stays empty so that a decoding process loads little.
"""
