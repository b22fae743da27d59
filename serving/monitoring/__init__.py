"""What is known of a request beyond its answer: its id, where its time went, and what was served."""
