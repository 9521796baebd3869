"""Where big files live: references to weights, stores that have them, the cache that keeps them."""
