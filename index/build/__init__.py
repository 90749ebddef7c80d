"""From images to an index: embed, keep a journal, write."""
