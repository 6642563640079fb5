"""What explore.py's page is made of: pictures that are drawn, uploaded and shown, and the server.

Modules in import order: pictures, server. `explore.py` at the root is the command line.
"""
