"""Pictures and pages: what a widget shows, as a file that needs neither kernel nor network.

Everything here takes plain data (the facts and arrays that a widget also sends to its browser side), no widget.
"""
