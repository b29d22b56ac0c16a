"""What a network makes of its inputs, block by block: the feature maps, their moments over a data set, and what a block
changes.

The blocks themselves are in `landscape.models`; what is said of features, with its error, in `landscape.analyses`.
"""
