"""Algorithm-hardware co-design of convolutional networks and their FPGA accelerators."""

__version__ = "0.1.0"
