"""The tab of images on which student and teacher disagree."""
