//! Golden texts for the machines people have.
