"""What runs on a machine: the load generator, servers under test, raw UDP throughput, cores, folders.

The only layer that starts processes, opens sockets or asks the machine about itself. It knows no results.
"""
