"""Hospitals train one model together; nothing but the model travels."""
