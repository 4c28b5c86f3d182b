//! `doctor`: what works here, how, and what is lost.
