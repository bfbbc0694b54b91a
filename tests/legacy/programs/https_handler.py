import socketserver
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])


class Hello(socketserver.BaseRequestHandler):
    def setup(self):
        self.request = context.wrap_socket(self.request, server_side=True)
        self.file = self.request.makefile("rwb")

    def handle(self):
        while self.file.readline() not in (b"\r\n", b""):
            pass
        self.file.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    def finish(self):
        self.file.close()
        self.request.close()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


with Server(("127.0.0.1", 0), Hello) as server:
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
