"""A gallery that is searched in the browser, as static files."""
