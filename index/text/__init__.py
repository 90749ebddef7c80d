"""Search by words: text models, and queries made with them."""
