"""What a trained network is still good for: maps, groups, anomalies, neighbours."""
