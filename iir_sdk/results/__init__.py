"""What a prediction gives: masks, maps and scores, at the query's own size."""
