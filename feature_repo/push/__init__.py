"""Near-real-time refresh of single entities: a vector from the current towers, online and offline, between two days."""
