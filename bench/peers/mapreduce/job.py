"""What the jobs of `flotilla-bench mapreduce` on other engines have in common.

A script starts its engine and calls `serve`. That says that it is ready and which version it is, waits for a line, does the
job, says that it is done, and waits until its input ends: so that a start isn't timed, and the memory and the CPU time of
the engine can be looked at in the end.
"""
import sys


def serve(version, work):
    job, folder, output = sys.argv[1:]
    print(f"ready {version}", flush=True)
    sys.stdin.readline()
    work(job, folder, output)
    print("done", flush=True)
    sys.stdin.read()
