"""Configuration: frozen sections, read from YAML 1.2, every problem reported at once; no torch."""
