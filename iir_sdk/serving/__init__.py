"""The HTTP API from many processes at once, on Ray Serve: requests computed together, sets in a shared folder."""
