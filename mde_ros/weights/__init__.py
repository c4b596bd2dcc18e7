"""The shipped models: NAME.safetensors, NAME.onnx of the same weights, and NAME.md, the card."""

DEFAULT = "student-fast"
COMPLETION = "completion-fast"  # takes LiDAR points too
