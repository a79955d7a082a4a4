"""The project over HTTP: routes, and the door that all requests pass."""
