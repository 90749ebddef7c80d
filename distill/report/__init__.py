"""What a run says of itself: model card, charts, cost, quality on held-out images."""
