import sys

from thrift.protocol import TBinaryProtocol
from thrift.server import TServer
from thrift.Thrift import TMessageType, TProcessor
from thrift.transport import TSocket, TTransport


class Ping(TProcessor):
    def process(self, iprot, oprot):
        name, _, seqid = iprot.readMessageBegin()
        iprot.readMessageEnd()
        oprot.writeMessageBegin(name, TMessageType.REPLY, seqid)
        oprot.writeMessageEnd()
        oprot.trans.flush()


class Socket(TSocket.TServerSocket):
    def listen(self):
        super().listen()
        print(self.handle.getsockname()[1], flush=True)


kind = getattr(TServer, sys.argv[1])
server = kind(
    Ping(),
    Socket("127.0.0.1", 0),
    TTransport.TBufferedTransportFactory(),
    TBinaryProtocol.TBinaryProtocolFactory(),
)
try:
    server.serve()
except KeyboardInterrupt:
    pass
