"""The convolution engine in Amaranth: `engine.Engine` is the top, `shape.Shape` its parameters.

Every cycle PF x PC x PV int8 products are summed into PF x PV accumulators of 32 bits, which stay
in place until an output pixel is finished (output stationary). Five units work side by side and
meet at counters: `sequencer` reads tasks, `loaders` bring weights and feature maps on the chip,
`compute` walks through the loops, `datapath` multiplies, adds and requantises, `writer` stores.
"""
