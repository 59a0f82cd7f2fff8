"""Pure signal processing: arrays in, arrays out, no files, no devices."""
