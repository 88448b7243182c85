"""What the commands do: stages in order, resuming.

Import what you need from the modules; this file stays empty so that `check` and `plan` never load torch.
"""
