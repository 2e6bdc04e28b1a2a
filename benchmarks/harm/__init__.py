"""What the fault campaign does to a bench: kills, wrong configurations, broken images."""
