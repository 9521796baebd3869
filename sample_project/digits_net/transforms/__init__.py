"""What turns a request's data into the network's input."""
