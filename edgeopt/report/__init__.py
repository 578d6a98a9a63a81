"""What a run found, as `report.json`, as a table in the terminal and as a page."""
