//! What the screen shows: rates and history made from events.
