"""Beyond one machine, by Ray: millions of pictures into Parquet, and folders as ``segment_folder`` writes them."""

from iir_sdk.ray.batch import BatchReport, segment
from iir_sdk.ray.workers import Workers

__all__ = ["BatchReport", "Workers", "segment"]
