"""Pictures: a scene with positions and styles, which all writers share."""
