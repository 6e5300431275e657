"""Training of the panoptic network: on pseudo-labels (guided), then on its own predictions."""
