"""What Feast knows of Headwater, and what trainers and servers share."""

import os

# ONNX Runtime reports its sessions to its maker unless this says no before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
