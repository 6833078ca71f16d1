"""Where images come from. Everything is made on the device it is asked for."""
