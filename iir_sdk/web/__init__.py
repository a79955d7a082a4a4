"""A page on which one mask becomes a thousand: pictures of a folder, masked while they are corrected."""
