import sys

from cheroot import wsgi


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


server = wsgi.Server(("127.0.0.1", 0), application)
if len(sys.argv) > 1:
    from cheroot.ssl.builtin import BuiltinSSLAdapter

    server.ssl_adapter = BuiltinSSLAdapter(sys.argv[1], sys.argv[2])
server.prepare()
print(server.bind_addr[1], flush=True)
try:
    server.serve()
except KeyboardInterrupt:
    pass
finally:
    server.stop()
