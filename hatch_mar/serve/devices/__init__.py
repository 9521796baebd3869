"""GPUs: which there are, which worker gets which, and what becomes of one that fails."""
