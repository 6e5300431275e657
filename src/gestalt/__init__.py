"""Stereo video in, panoptic network out, with no human label."""
