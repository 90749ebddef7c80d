"""The web page: a folder for each tab."""
