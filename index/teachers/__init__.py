"""Ask a teacher with a price for each answer: ledger, budget, retry."""
