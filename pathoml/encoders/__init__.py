"""Pretrained networks that turn tiles into features.

Import what you need from the modules; this file stays empty so that settings can be read without loading torch.
"""
