"""Self-supervised dense features: an image in, a vector for each cell of a grid out, no human label used."""
