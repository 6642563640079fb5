"""What explore.py's page is made of, and the server. `explore.py` at the root is the command line.

Modules in import order: strokes, pictures, views (of the modalities), examples, explorer (of one model), page, server.
"""
