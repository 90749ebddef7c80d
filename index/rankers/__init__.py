"""Teachers that only rank: what they are asked, and what they answer."""
