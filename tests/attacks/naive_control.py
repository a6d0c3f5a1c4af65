# SPDX-License-Identifier: BSD-2-Clause
"""The negative control of a control socket: whoever reaches it is served, as at docker's.

python naive_control.py PATH
"""

import json
import os
import socket
import subprocess
import sys

if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[1])
        os.chmod(sys.argv[1], 0o666)  # noqa: S103 - that is the hole
        listener.listen(1)
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            with client:
                asked = json.loads(client.recv(65536).rstrip(b"\0"))
                done = subprocess.run(
                    ["/bin/sh", "-c", asked["parameters"].get("command", "true")],
                    capture_output=True,
                    check=False,
                )
                client.sendall(done.stdout + b"\0")
