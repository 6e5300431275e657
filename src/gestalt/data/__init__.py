"""Data: stereo video, calibrations, manifests, ground truth, label spaces and sharded storage of maps."""
