"""What a network computes, block by block: feature maps, their moments over a data set, and networks without a block.

The blocks themselves are in `landscape.models`; estimates from features, with their errors, in `landscape.analyses`.
"""
