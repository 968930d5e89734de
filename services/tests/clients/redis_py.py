"""redis-py against a running cluster, as its users write it: plain (to a lone node) or its cluster client."""
import sys
import redis

host, port, mode, protocol = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if mode == "cluster":
    r = redis.RedisCluster(host=host, port=port, protocol=protocol)
    assert len(r.get_nodes()) >= 3, r.get_nodes()
else:
    r = redis.Redis(host=host, port=port, protocol=protocol)

assert r.ping()
assert r.set("greeting", "ahoy") and r.get("greeting") == b"ahoy"
assert r.set("greeting", "x", nx=True) is None
assert r.set("greeting", "y", get=True) == b"ahoy"
assert r.exists("greeting") == 1 and r.type("greeting") == b"string" and r.strlen("greeting") == 1
assert r.append("greeting", "z") == 2 and r.getdel("greeting") == b"yz" and r.get("greeting") is None
assert r.incr("{n}") == 1 and r.incrby("{n}", 41) == 42 and r.decr("{n}") == 41 and r.decrby("{n}", 1) == 40
assert r.set("soon", "over", ex=100) and 90 < r.ttl("soon") <= 100
assert r.mset({"{t}a": 1, "{t}b": "two"}) and r.mget("{t}a", "{t}b", "{t}c") == [b"1", b"two", None]
assert r.delete("{t}a", "{t}b") == 2 and r.setnx("only", 1) and not r.setnx("only", 2)
try:
    r.set("text", "abc")
    r.incr("text")
    raise SystemExit("INCR of a text was accepted")
except redis.ResponseError as error:
    assert "not an integer or out of range" in str(error), error
try:
    r.execute_command("GET", "a", "b") if mode == "plain" else r.execute_command("GET", "a", "b", target_nodes="random")
    raise SystemExit("GET of two keys was accepted")
except redis.ResponseError as error:
    assert "wrong number of arguments for 'get' command" in str(error), error

for number in range(500):
    assert r.set(f"key:{number}", f"value:{number}")
for number in range(500):
    assert r.get(f"key:{number}") == f"value:{number}".encode()
pipe = r.pipeline(transaction=False)
for number in range(200):
    pipe.set(f"piped:{number}", number).get(f"piped:{number}")
replies = pipe.execute()
assert replies == [part for number in range(200) for part in (True, str(number).encode())], replies
blob = bytes(range(256)) * 4096
assert r.set("blob", blob) and r.get("blob") == blob
print("ok", mode, protocol)
