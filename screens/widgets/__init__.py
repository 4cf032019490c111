"""What the screens are made of: widgets that draw and hold no I/O."""
