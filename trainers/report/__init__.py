"""What a run leaves: `report.json`, the same figures on one HTML page, and their summary in the terminal."""
