"""The documented HTTP API, ``/v1``: sets of supports, and predictions by them."""
