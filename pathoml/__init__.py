"""From whole-slide images and a survival table to a prognostic model."""
