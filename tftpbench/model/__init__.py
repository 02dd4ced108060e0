"""What is asked and what the words mean: scenarios, servers' manifests, axes, metrics, units, errors.

Pure values and the files that they are read from. It must never touch a server, a socket or a result.
"""
