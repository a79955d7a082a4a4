"""Embedded weights, ``*.safetensors``, listed in ``weights_manifest.json``."""
