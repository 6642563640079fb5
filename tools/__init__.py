"""What explore.py, reproduce.py and the measurements of speed are made of."""
