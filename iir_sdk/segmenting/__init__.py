"""Whole folders: queries found, read ahead, segmented and written, with a journal that a later run goes on from."""
