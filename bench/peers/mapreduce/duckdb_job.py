"""A job of `flotilla-bench mapreduce` on DuckDB: job, input folder, output file."""
import os
import sys

import duckdb

from job import serve

db = duckdb.connect()
db.execute("SET threads=2")
db.execute("SET temp_directory=$1", [os.environ.get("TMPDIR", "/tmp")])


def work(job, folder, output):
    # A delimiter that no text has: every line is one field.
    lines = (
        f"read_csv('{folder}/*', columns={{'line': 'VARCHAR'}}, header=false, auto_detect=false, "
        f"delim='{chr(1)}', quote='', escape='', max_line_size=4000000, strict_mode=false)"
    )
    if job == "wc":
        query = f"""
            SELECT word, count(*) FROM (
                SELECT unnest(regexp_extract_all(line, '[A-Za-z]+')) AS word FROM {lines}
            ) GROUP BY word ORDER BY word"""
    elif job == "sort":
        db.execute("SET memory_limit='512MB'")
        query = f"SELECT line FROM {lines} ORDER BY line"
    else:
        sys.exit(f"{job}: not a job of this script")
    db.execute(f"COPY ({query}) TO '{output}' (HEADER false, QUOTE '', DELIMITER '\t')")


serve(duckdb.__version__, work)
