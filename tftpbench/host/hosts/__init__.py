"""The same load from several hosts: one schedule in shares, one start, one result; and servers on a host of their own.

    calls.py       the calls to a load host as data, and their bounds
    clock.py       how far the clock of another host is from this one's
    carrier.py     what carries calls to other hosts, and a worker's end of it
    agent.py       the child process on a load host that holds its generator
    generator.py   the `LoadGenerator` over all of them
    merge.py       the results of all hosts as one
    servers.py     a host on which servers are started, in the place of this machine
    server_agent.py   the child process there that holds them

It must never send a share's load a second time, nor let another host take it over.
"""
