import logging

import rpyc
from rpyc.utils.server import ThreadedServer


class Service(rpyc.Service):
    def exposed_hello(self):
        return "hello"


logging.getLogger("SERVICE").setLevel(logging.CRITICAL)
server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
print(server.port, flush=True)
server.start()
