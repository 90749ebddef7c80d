"""The page on which a student learns while one watches."""
