#!/usr/bin/env python3
"""Takes the place of redis-server where Redis' own tests start one: a node with the port, the password and the users of a
redis.conf, which forwards and stands alone. FLOTILLA is the program."""
import hashlib, os, shlex, socket, sys, time

settings, users = {}, []
folder = "."


def lines(path):
    for line in open(path, encoding="utf-8"):
        words = shlex.split(line, comments=True)
        if words:
            yield words


for words in lines(sys.argv[1]):
    if words[0] == "user":
        users.append(words[1:])
    else:
        settings[words[0]] = words[1] if len(words) > 1 else ""
folder = settings.get("dir", ".")
if settings.get("aclfile"):
    users += [words[1:] for words in lines(os.path.join(folder, settings["aclfile"]))]


def hashed(text):
    return hashlib.sha256(text.encode()).hexdigest()


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


port = int(settings["port"])
toml = [
    'cluster = "suite"', "node = 1", f"data = {quoted(os.path.abspath(os.path.join(folder, f'node-{port}')))}",
    'redirect = "forward"',
]
if settings.get("requirepass"):
    toml.append(f'requirepass_sha256 = "{hashed(settings["requirepass"])}"')
toml += ["[[nodes]]", "id = 1", 'host = "127.0.0.1"', f"port = {port}", f"peer_port = {port - 10000}"]
for name, *rules in users:
    rules = ["#" + hashed(rule[1:]) if rule.startswith(">") else rule for rule in rules]
    toml += ["[[users]]", f"name = {quoted(name)}", f"rules = {quoted(' '.join(rules))}"]
config = os.path.join(folder, f"node-{port}.toml")
with open(config, "w", encoding="utf-8") as file:
    file.write("\n".join(toml) + "\n")

pid = os.getpid()
if os.fork() == 0:
    # The suite waits for these lines.
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port)) as link:
                if settings.get("requirepass"):
                    link.sendall(b"AUTH " + settings["requirepass"].encode() + b"\r\n")
                    link.recv(64)
                link.sendall(b"GET suite\r\n")
                reply = link.recv(256)
                # Until there is a leader. Whoever may not ask has to guess.
                if reply.startswith(b"-NO"):
                    time.sleep(1)
                if reply and not reply.startswith((b"-CLUSTERDOWN", b"-TRYAGAIN")):
                    break
        except OSError:
            pass
        time.sleep(0.05)
    print(f" PID: {pid}\nReady to accept connections", flush=True)
    os._exit(0)
os.execv(os.environ["FLOTILLA"], [os.environ["FLOTILLA"], "serve", "--config", config])
