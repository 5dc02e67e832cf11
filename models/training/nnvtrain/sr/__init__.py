"""Super-resolution and repair networks of the element `nnsr`: data, training, export."""
