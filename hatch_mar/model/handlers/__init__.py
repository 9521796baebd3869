"""Default handlers: what a manifest may name without bringing a module.

Each is a class that handlers of archives may derive from. Importing them imports no model library:
torch, Pillow and captum come in when a model is loaded, an image opened, a prediction explained.
"""
