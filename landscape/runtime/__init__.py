"""What every room uses: errors for the user, settings that check themselves, random draws by seed, threads, processes
under torchrun, devices and arithmetic, and files that are written whole.

Nothing here knows what a network, a loss or a result is.
"""
