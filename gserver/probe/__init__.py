"""The measuring client: finds any TCP server's connection limit and how it turns people away.

outcomes, profiles     what a client observed, decided without I/O
oracle                 asks the kernel whether the server has accepted a connection
engine                 connection attempts on hub callbacks over raw sockets
"""
