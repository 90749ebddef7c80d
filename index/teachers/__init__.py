"""Ask a teacher that has a price: ledger, budget, retry."""
