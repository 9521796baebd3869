"""Where big files live: references to weights, the stores that hold them, the cache that keeps them."""
