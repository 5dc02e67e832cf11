"""Training of NNV bundles: data, networks, training, quantisation, export."""
