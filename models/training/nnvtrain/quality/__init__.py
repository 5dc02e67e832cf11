"""The network that judges decoded video without its original: ``python -m nnvtrain quality …``."""
