"""Ask a teacher whose answers have a price: ledger, budget, retry."""
