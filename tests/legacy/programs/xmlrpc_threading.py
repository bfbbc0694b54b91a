from socketserver import ThreadingMixIn
from xmlrpc.server import SimpleXMLRPCServer


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    pass


with Server(("127.0.0.1", 0), logRequests=False) as server:
    server.register_function(lambda a, b: a + b, "add")
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
