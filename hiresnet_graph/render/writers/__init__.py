"""Writers: a picture or a scene in the text of a file format."""
