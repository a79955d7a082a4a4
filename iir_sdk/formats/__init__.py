"""Masks as other tools have them: run lengths, polygons, instances; writers of folders; readers of supports."""
