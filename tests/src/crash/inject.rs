//! System calls of a controller that fail, one at a time.
