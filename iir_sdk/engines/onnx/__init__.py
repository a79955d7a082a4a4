"""The network as ONNX graphs: export, and running them without torch."""
