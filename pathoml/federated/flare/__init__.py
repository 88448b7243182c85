"""The network itself: NVIDIA FLARE carries the bytes of `pathoml.federated`, over mutual TLS, and nothing else.

Nothing here is imported with `pathoml`, and NVIDIA FLARE is imported only where a participant runs.
"""
