"""The web server: routes, limits, pictures, APIs."""
