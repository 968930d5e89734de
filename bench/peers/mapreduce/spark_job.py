"""A job of `flotilla-bench mapreduce` on PySpark, local[2], DataFrames: job, input folder, output folder."""
import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, explode, split

from job import serve

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.driver.memory", "4g")
    .config("spark.ui.enabled", "false")
    .config("spark.local.dir", os.environ.get("TMPDIR", "/tmp"))
    .config("spark.sql.shuffle.partitions", "8")
    .getOrCreate()
)


def work(job, folder, output):
    lines = spark.read.text(folder)
    if job == "wc":
        words = lines.select(explode(split(col("value"), "[^A-Za-z]+")).alias("word")).where(col("word") != "")
        words.groupBy("word").count().orderBy("word").write.csv(output, sep="\t")
    elif job == "sort":
        lines.orderBy("value").write.text(output)
    else:
        sys.exit(f"{job}: not a job of this script")


serve(spark.version, work)
spark.stop()
