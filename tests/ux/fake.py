"""A memctld that says what it is told to: for what a real one would never say, and for a clock of one's own.

    with Fake({"Status": {...}, "ListVms": lambda parameters: {...}}) as f:
        subprocess.run([memctl, "--socket", f.socket, "report", ...])
"""
import json
import os
import shutil
import socket
import tempfile
import threading


class Fake:
    def __init__(self, answers):
        self.answers = answers
        self.directory = tempfile.mkdtemp(prefix="memctl-fake-")
        self.socket = os.path.join(self.directory, "socket")
        self.asked = []

    def __enter__(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.socket)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _accept(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        data = b""
        with peer:
            while True:
                try:
                    more = peer.recv(1 << 16)
                except OSError:
                    return
                if not more:
                    return
                data += more
                while b"\0" in data:
                    text, data = data.split(b"\0", 1)
                    call = json.loads(text)
                    peer.sendall(json.dumps(self._reply(call["method"].split(".")[-1], call.get("parameters", {}))).encode() + b"\0")

    def _reply(self, method, parameters):
        self.asked.append((method, parameters))
        answer = self.answers.get(method)
        if answer is None:
            return {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": method}}
        return {"parameters": answer(parameters) if callable(answer) else answer}
