"""Networks that segment tissue. Import from the modules; this file stays empty so that nothing loads torch early."""
