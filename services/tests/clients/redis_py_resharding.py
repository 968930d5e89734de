"""redis-py's cluster client while shards move: nothing that it doesn't get over by itself."""
import sys
import redis

r = redis.RedisCluster(host=sys.argv[1], port=int(sys.argv[2]))
for number in range(1500):
    assert r.set(f"py:{number % 200}", number)
    assert r.get(f"py:{number % 200}") == str(number).encode()
for number in range(300):
    assert r.incr("py:counter") == number + 1
print("ok", r.get("py:counter").decode())
