from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer


class Resolver(BaseResolver):
    def resolve(self, request, handler):
        reply = request.reply()
        reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("192.0.2.7")))
        return reply


server = DNSServer(
    Resolver(), port=0, address="127.0.0.1", tcp=True, logger=DNSLogger("-request,-reply")
)
print(server.server.server_address[1], flush=True)
try:
    server.start()
except KeyboardInterrupt:
    pass
server.server.server_close()
