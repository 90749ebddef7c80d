"""Find image files, read them, decode them."""
