"""`make demo`: two nights of four hosts on this machine. Everything is real but AWS."""
