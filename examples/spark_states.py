"""The statistics of a column of vectors in Spark: a state for each partition, merged by a tree.

Needs pyspark and a Java runtime beside fastaniso, which every worker has to have, too:

    python examples/spark_states.py

``mapInArrow`` hands the rows of a partition over as Arrow batches; what comes out of it is one state as bytes of
safetensors. Spark computes a partition anew whose worker died and takes one result of each: no row counts twice.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

import fastaniso


def states(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The state of all rows of a partition; none of an empty one."""
    accumulator = fastaniso.Accumulator(gram=True)
    seen = 0
    for batch in batches:
        if batch.num_rows:
            accumulator.update(rows_of(batch.column("vectors")))
            seen += batch.num_rows
    if seen:
        yield pa.RecordBatch.from_pydict({"state": [fastaniso.state_to_bytes(accumulator.state)]})


def rows_of(vectors: pa.ListArray) -> np.ndarray:
    """The lists of floats as rows, without a copy."""
    lengths = pc.min_max(pc.list_value_length(vectors)).as_py()
    if vectors.null_count or lengths["min"] != lengths["max"]:
        raise ValueError("vectors: some are null, or of other lengths than others; leave them out first")
    return vectors.flatten().to_numpy(zero_copy_only=True).reshape(len(vectors), -1)


def merged(one: bytes, other: bytes) -> bytes:
    """Two states as one."""
    state = fastaniso.bytes_to_state(one).merge(fastaniso.bytes_to_state(other))
    return fastaniso.state_to_bytes(state)


def main() -> None:
    """20,000 vectors in four files, by Spark and by one call."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    rows = np.random.default_rng(0).standard_normal((20_000, 64), np.float32) + np.float32(0.3)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(np.array_split(rows, 4)):
            pq.write_table(pa.table({"vectors": list(part)}), f"{folder}/part-{number}.parquet")
        frame = spark.read.parquet(folder).select("vectors")
        parts = frame.mapInArrow(states, "state binary").rdd.map(lambda row: bytes(row.state))
        state = fastaniso.bytes_to_state(parts.treeReduce(merged))
    spark.stop()
    compare("Spark", fastaniso.describe_state(state), fastaniso.describe(rows))


def compare(name: str, found: fastaniso.Description, expected: fastaniso.Description) -> None:
    """Both, a statistic a line."""
    print(f"{'':20}{name:>22}{'describe':>22}  relative difference")
    for statistic in ("n", "mean_cosine", "cosine_std", "isoscore", "effective_rank", "participation_ratio"):
        ours, theirs = getattr(found, statistic), getattr(expected, statistic)
        print(f"{statistic:20}{ours:22.15g}{theirs:22.15g}  {abs(ours - theirs) / theirs:.0e}")


if __name__ == "__main__":
    main()
