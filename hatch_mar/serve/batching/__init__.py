"""Which requests go to which worker, and when. No clock and no I/O in here."""
