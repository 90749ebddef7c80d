"""What a run says of itself: model card, charts, quality on held-out images."""
