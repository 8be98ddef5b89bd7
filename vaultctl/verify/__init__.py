"""`verify-deployment`: a throw-away host lives through whole nights on the real stack, and every step is timed.

estimate.py  what it costs         house.py  the throw-away host: a folder, the real client
api.py       a host's HTTPS calls  pull.py   what it pushed, pulled back and compared
steps.py     steps and their times verification.py  the steps in their order, and the cleaning up
heard.py     events or sweep?
"""
