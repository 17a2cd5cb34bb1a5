"""What `compare_peers.py` is made of: inputs, the peers' environment, one runner per peer, tables."""
