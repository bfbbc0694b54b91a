import logging
import socket
import threading

import paramiko

logging.getLogger("paramiko").setLevel(logging.CRITICAL)
key = paramiko.RSAKey.generate(2048)


def serve(client):
    transport = paramiko.Transport(client)
    transport.add_server_key(key)
    try:
        transport.start_server(server=paramiko.ServerInterface())
        transport.join()
    except (paramiko.SSHException, EOFError):
        pass
    finally:
        transport.close()


sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", 0))
sock.listen(100)
print(sock.getsockname()[1], flush=True)
try:
    while True:
        client, addr = sock.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()
        del client
except KeyboardInterrupt:
    pass
sock.close()
