"""Videos: frames read in order, segmented by supports and by what earlier frames showed, and written."""
