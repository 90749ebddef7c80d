"""What is known of the items: rows of a CSV file, as columns to filter by."""
