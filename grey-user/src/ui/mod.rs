//! What a person sees: the live table and plain lines.
