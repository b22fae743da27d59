"""The life of embedding versions and releases after their first training."""
