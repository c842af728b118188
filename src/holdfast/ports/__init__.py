"""What the engine asks of the outside.

The docstrings are the contract; each sentence has its test in ``holdfast.testing``.
"""
